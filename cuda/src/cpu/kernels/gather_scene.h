// Sixteen Gaussians of the scene's arrays as vectors, and back.
#pragma once

#include "raster_kernels.h"
#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

// Lane i is Gaussian first + i, or the last one of [.., end) in lanes beyond it.
SPLAT_INLINE I clamped_lanes(int64_t first, int64_t end) {
    const I lane = lane_index();
    const int32_t last = end - first < kLanes ? static_cast<int32_t>(end - first - 1) : kLanes - 1;
    return select(lane > I(last), I(last), lane);
}

SPLAT_INLINE Raw<F> load_raw(const SceneArrays& scene, int64_t first, I lanes) {
    Raw<F> g;
    const I by3 = lanes * I(3), by4 = lanes * I(4);
    const float* means = scene.means + 3 * first;
    const float* quats = scene.quats + 4 * first;
    const float* log_scales = scene.log_scales + 3 * first;
    g.mean = {gather(means, by3), gather(means + 1, by3), gather(means + 2, by3)};
    for (int i = 0; i < 4; ++i) g.quat[i] = gather(quats + i, by4);
    g.log_scale = {gather(log_scales, by3), gather(log_scales + 1, by3), gather(log_scales + 2, by3)};
    g.logit = gather(scene.logit_opacities + first, lanes);
    return g;
}

// The first `used` coefficients (times 3 channels) of 16 Gaussians: sh[3 k + channel].
SPLAT_INLINE void load_sh(const SceneArrays& scene, int64_t first, int64_t end, I lanes, int used, F* sh) {
    const int stride = 3 * scene.coefficients;
    const float* base = scene.sh + first * stride;
    if (stride == 48) {
        const int64_t last = end - first - 1;
        for (int part = 0; part * kLanes < 3 * used; ++part) {
            F rows[kLanes];
            for (int i = 0; i < kLanes; ++i) rows[i] = F::load(base + (i < last ? i : last) * stride + part * kLanes);
            transpose(rows);
            for (int i = 0; i < kLanes; ++i) sh[part * kLanes + i] = rows[i];
        }
        return;
    }
    const I offsets = lanes * I(stride);
    for (int i = 0; i < 3 * used; ++i) sh[i] = gather(base + i, offsets);
}

}  // namespace
}  // namespace splat::cpu::SPLAT_ISA
