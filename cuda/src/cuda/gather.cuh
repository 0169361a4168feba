// One Gaussian of the scene's arrays, and dispatch by the degree of its harmonics.
#pragma once

#include <type_traits>

#include "splat/sh.h"
#include "stages.h"

namespace splat::gpu {

SPLAT_DEVICE Raw<float> load_raw(const SceneArrays& scene, int64_t i) {
    Raw<float> g;
    g.mean = {scene.means[3 * i], scene.means[3 * i + 1], scene.means[3 * i + 2]};
    for (int k = 0; k < 4; ++k) g.quat[k] = scene.quats[4 * i + k];
    g.log_scale = {scene.log_scales[3 * i], scene.log_scales[3 * i + 1], scene.log_scales[3 * i + 2]};
    g.logit = scene.logit_opacities[i];
    return g;
}

// The first kCoefficients, times 3 channels: sh[3 k + channel].
template <int kCoefficients>
SPLAT_DEVICE void load_sh(const SceneArrays& scene, int64_t i, float (&sh)[3 * kCoefficients]) {
    if (scene.half_sh) {
        const uint16_t* row = reinterpret_cast<const uint16_t*>(scene.sh) + i * 3 * scene.coefficients;
        if constexpr (kCoefficients % 4 == 0) {
            if ((reinterpret_cast<uintptr_t>(row) & 7) == 0) {
#pragma unroll
                for (int k = 0; k < 3 * kCoefficients / 4; ++k) {
                    const Half4 four = reinterpret_cast<const Half4*>(row)[k];
#pragma unroll
                    for (int j = 0; j < 4; ++j) sh[4 * k + j] = from_half(four.at[j]);
                }
                return;
            }
        }
#pragma unroll
        for (int k = 0; k < 3 * kCoefficients; ++k) sh[k] = from_half(row[k]);
        return;
    }
    const float* row = scene.sh + i * 3 * scene.coefficients;
    if constexpr (kCoefficients % 4 == 0) {
        if ((reinterpret_cast<uintptr_t>(row) & 15) == 0) {
#pragma unroll
            for (int k = 0; k < 3 * kCoefficients / 4; ++k) {
                const Float4 four = reinterpret_cast<const Float4*>(row)[k];
                sh[4 * k] = four.x, sh[4 * k + 1] = four.y, sh[4 * k + 2] = four.z, sh[4 * k + 3] = four.w;
            }
            return;
        }
    }
#pragma unroll
    for (int k = 0; k < 3 * kCoefficients; ++k) sh[k] = row[k];
}

// Calls f(std::integral_constant<int, degree>), so that arrays by degree stay in registers.
template <class F>
void with_degree(int degree, const F& f) {
    if (degree == 0) f(std::integral_constant<int, 0>{});
    if (degree == 1) f(std::integral_constant<int, 1>{});
    if (degree == 2) f(std::integral_constant<int, 2>{});
    if (degree >= 3) f(std::integral_constant<int, 3>{});
}

}  // namespace splat::gpu
