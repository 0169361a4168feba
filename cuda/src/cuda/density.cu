#include "density.h"

#include "splat/density.h"
#include "splat/mcmc.h"

namespace splat::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    noise_kernel(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                 const float* eta, const float* gain, int64_t count, const Record* record) {
    const int64_t i = thread_index();
    if (i >= count || (record && record->refused)) return;
    float moved[3];
    splat::mcmc_noise(quats + 4 * i, log_scales + 3 * i, logit_opacities[i], eta + 3 * i, *gain, moved);
    for (int c = 0; c < 3; ++c) means[3 * i + c] += moved[c];
}

__global__ void __launch_bounds__(kThreads) relocation_kernel(const float* opacities, const int32_t* counts,
                                                              float* new_opacities, float* scale_factors,
                                                              int64_t count) {
    const int64_t i = thread_index();
    if (i >= count) return;
    const Relocated to = mcmc_relocate(opacities[i], counts[i]);
    new_opacities[i] = static_cast<float>(to.opacity);
    scale_factors[i] = static_cast<float>(to.scale);
}

__global__ void __launch_bounds__(kThreads)
    statistics_kernel(float* gradient_sum, float* view_count, const float* gradient, const int32_t* radii,
                      float half_width, float half_height, int64_t count, const Record* record) {
    const int64_t i = thread_index();
    // What was not drawn has no gradient.
    if (i >= count || (record && record->refused) || radii[i] <= 0) return;
    gradient_sum[i] += centre_gradient(gradient[2 * i], gradient[2 * i + 1], half_width, half_height);
    view_count[i] += 1.0f;
}

int64_t blocks_for(int64_t count) { return divide_up(count, kThreads); }

}  // namespace

void mcmc_noise(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                const float* eta, const float* gain, int64_t count, const Record* record, Stream stream) {
    launch("mcmc_noise", noise_kernel, blocks_for(count), kThreads, stream, means, quats, log_scales,
           logit_opacities, eta, gain, count, record);
}

void mcmc_relocation(const float* opacities, const int32_t* counts, float* new_opacities, float* scale_factors,
                     int64_t count, Stream stream) {
    launch("mcmc_relocation", relocation_kernel, blocks_for(count), kThreads, stream, opacities, counts,
           new_opacities, scale_factors, count);
}

void accumulate_gradients(float* gradient_sum, float* view_count, const float* gradient, const int32_t* radii,
                          float half_width, float half_height, int64_t count, const Record* record,
                          Stream stream) {
    launch("accumulate_gradients", statistics_kernel, blocks_for(count), kThreads, stream, gradient_sum,
           view_count, gradient, radii, half_width, half_height, count, record);
}

}  // namespace splat::gpu
