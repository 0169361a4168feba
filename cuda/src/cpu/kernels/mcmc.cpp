#include "mcmc.h"

#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

// Sixteen Gaussians of `width` floats each, as one vector a component.
template <int width>
SPLAT_INLINE void load(const float* from, int n, F (&to)[width]) {
    float columns[width][kLanes] = {};
    for (int i = 0; i < n; ++i)
        for (int c = 0; c < width; ++c) columns[c][i] = from[i * width + c];
    for (int c = 0; c < width; ++c) to[c] = F::load(columns[c]);
}

void noise(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
           const float* eta, float gain, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        F quat[4], log_scale[3], direction[3], moved[3];
        load(quats + 4 * i, n, quat);
        load(log_scales + 3 * i, n, log_scale);
        load(eta + 3 * i, n, direction);
        mcmc_noise(quat, log_scale, F::load(logit_opacities + i, n), direction, F(gain), moved);
        for (int c = 0; c < 3; ++c) {
            float column[kLanes];
            moved[c].store(column);
            for (int k = 0; k < n; ++k) means[3 * (i + k) + c] += column[k];
        }
    }
}

}  // namespace

extern const McmcKernels mcmc{&noise};

}  // namespace splat::cpu::SPLAT_ISA
