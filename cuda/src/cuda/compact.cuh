// Numbers, in the order of the threads, those threads of a launch that keep something: one pass, decoupled
// look-back (Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back", 2016).
#pragma once

#include "device.h"

namespace splat::gpu {

// Hands out block numbers in the order in which blocks begin, so that those before have begun as well.
SPLAT_DEVICE uint32_t block_ticket(unsigned int* tickets) {
    __shared__ uint32_t ticket;
    if (threadIdx.x == 0) ticket = atomicAdd(tickets, 1u);
    __syncthreads();
    return ticket;
}

// A block's entry: its own count, or the count of all blocks up to it, below a flag that says which.
inline constexpr unsigned long long kOwnCount = 1ull << 32, kCountSoFar = 2ull << 32;

// The number of threads that keep something before this one. `status` [blocks] holds zeros at launch. All
// threads of the block call it; in the last block `total` of thread 0 is the number of all.
template <int kThreads>
SPLAT_DEVICE uint32_t ordered_place(bool keep, uint32_t ticket, unsigned long long* status, uint32_t& total) {
    constexpr int kWarps = kThreads / kWarp;
    __shared__ uint32_t counts[kWarps];
    __shared__ uint32_t before_block;
    volatile unsigned long long* entries = status;  // others write them meanwhile

    const uint32_t lane = lane_index(), kept = __ballot_sync(kAllLanes, keep);
    const int warp = static_cast<int>(threadIdx.x / kWarp);
    if (lane == 0) counts[warp] = static_cast<uint32_t>(__popc(kept));
    __syncthreads();
    uint32_t before_warp = 0, own = 0;
    for (int w = 0; w < kWarps; ++w) {
        if (w == warp) before_warp = own;
        own += counts[w];
    }
    if (warp == 0) {
        if (lane == 0) entries[ticket] = (ticket == 0 ? kCountSoFar : kOwnCount) | own;
        uint32_t before = 0;
        // Lane l looks at the l-th block before.
        for (int64_t nearest = static_cast<int64_t>(ticket) - 1; nearest >= 0;) {
            const int64_t block = nearest - lane;
            unsigned long long entry = kCountSoFar;
            if (block >= 0) entry = entries[block];
            if (__any_sync(kAllLanes, entry == 0)) continue;  // not there yet
            const uint32_t complete = __ballot_sync(kAllLanes, (entry & kCountSoFar) != 0);
            const uint32_t last = complete ? static_cast<uint32_t>(__ffs(static_cast<int>(complete))) - 1 : kWarp - 1;
            before += warp_sum(lane <= last ? static_cast<uint32_t>(entry) : 0u);
            if (complete) break;
            nearest -= kWarp;
        }
        if (lane == 0) {
            entries[ticket] = kCountSoFar | (before + own);
            before_block = before;
        }
    }
    __syncthreads();
    total = before_block + own;
    return before_block + before_warp + static_cast<uint32_t>(__popc(kept & ((1u << lane) - 1)));
}

}  // namespace splat::gpu
