// MCMC over arrays of Gaussians.
#pragma once

#include <cstdint>

#include "isa.h"
#include "splat/mcmc.h"

namespace splat::cpu {

struct McmcKernels {
    // means += noise, over items [0, count) of [N, 3], [N, 4], [N, 3], [N] and [N, 3].
    void (*noise)(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                  const float* eta, float gain, int64_t count);
};
SPLAT_DECLARE_KERNELS(McmcKernels, mcmc)

}  // namespace splat::cpu
