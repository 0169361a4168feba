// Kernels that try the emulation itself (tests/emulate.h): one that is right, and one for each mistake that
// it must show. Never part of the product.
#include "selftest.h"

namespace splat::gpu {
namespace {

constexpr int kThreads = 96;

// Sum of each block's values: warps by shuffles, the block through shared memory.
template <bool kBarrier>
__global__ void block_sums(const float* values, float* sums) {
    __shared__ float shared[kThreads / kWarp];
    const float sum = warp_sum(values[thread_index()]);
    if (lane_index() == 0) shared[threadIdx.x / kWarp] = sum;
    if constexpr (kBarrier) __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (float part : shared) total += part;
        sums[blockIdx.x] = total;
    }
    __syncthreads();
}

__global__ void unreached_barrier() {
    if (threadIdx.x < 40) __syncthreads();
    __syncwarp();
    if (threadIdx.x >= 40) __ballot_sync(kAllLanes, 1);
}

__global__ void diverged_intrinsics() {
    if (lane_index() < 16)
        __ballot_sync(kAllLanes, 1);
    else
        __shfl_sync(kAllLanes, 1.0f, 0);
}

__global__ void early_exit(uint32_t* ballots) {
    if (lane_index() % 2) return;
    const uint32_t ballot = __ballot_sync(kAllLanes, 1);
    if (lane_index() == 0) ballots[threadIdx.x / kWarp] = ballot;
    const int count = __syncthreads_count(threadIdx.x < 64);
    if (threadIdx.x == 0) ballots[kThreads / kWarp] = static_cast<uint32_t>(count);
}

}  // namespace

void selftest(const char* which, const float* values, float* out, int64_t blocks) {
    const std::string name = which;
    if (name == "block sums") launch("block_sums", block_sums<true>, blocks, kThreads, nullptr, values, out);
    if (name == "missing barrier") launch("block_sums", block_sums<false>, blocks, kThreads, nullptr, values, out);
    if (name == "unreached barrier") launch("unreached_barrier", unreached_barrier, 1, kThreads, nullptr);
    if (name == "diverged intrinsics") launch("diverged_intrinsics", diverged_intrinsics, 1, kThreads, nullptr);
    if (name == "too many blocks") launch("block_sums", block_sums<true>, int64_t{1} << 31, kThreads, nullptr, values, out);
    if (name == "early exit") {
        uint32_t ballots[kThreads / kWarp + 1] = {};
        launch("early_exit", early_exit, 1, kThreads, nullptr, ballots);
        for (int i = 0; i <= kThreads / kWarp; ++i) out[i] = static_cast<float>(ballots[i]);
    }
}

}  // namespace splat::gpu
