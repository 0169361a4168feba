// Density control over arrays of Gaussians on the device: the noise and relocation of MCMC, and the statistics
// of adaptive density control. With the record of a guard (or null) they heed it.
#pragma once

#include <cstdint>

#include "guard.h"

namespace splat::gpu {

// means [N, 3] += noise, of quats [N, 4], log_scales [N, 3], logit_opacities [N], eta [N, 3] and gain [1].
void mcmc_noise(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                const float* eta, const float* gain, int64_t count, const Record* record, Stream stream);

// What each of counts[i] copies of a Gaussian of opacities[i] must be to look like the one: [N] each.
void mcmc_relocation(const float* opacities, const int32_t* counts, float* new_opacities, float* scale_factors,
                     int64_t count, Stream stream);

// Adds one render's gradients [N, 2] per pixel to gradient_sum [N] and those drawn (radii [N] > 0) to
// view_count [N].
void accumulate_gradients(float* gradient_sum, float* view_count, const float* gradient, const int32_t* radii,
                          float half_width, float half_height, int64_t count, const Record* record,
                          Stream stream);

}  // namespace splat::gpu
