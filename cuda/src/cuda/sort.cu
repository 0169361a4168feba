#include "sort.h"

#if defined(SPLAT_EMULATE)
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>
#else
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif

namespace splat::gpu {

#if defined(SPLAT_EMULATE)

void sort_pairs(void* workspace, size_t& bytes, Pair<uint32_t>& keys, Pair<uint32_t>& values, int64_t n, int bits,
                Stream) {
    bytes = 1;
    if (!workspace) return;
    const int launches = 2 + (bits + 7) / 8;  // as CUB: histograms, their sums, a pass for 8 bits
    launch_library(launches, [keys, values, n, bits] {
        const uint32_t mask = bits >= 32 ? 0xffffffffu : (1u << bits) - 1;
        std::vector<int64_t> order(n);
        std::iota(order.begin(), order.end(), int64_t{0});
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            return (keys.current[a] & mask) < (keys.current[b] & mask);
        });
        for (int64_t i = 0; i < n; ++i) {
            keys.other[i] = keys.current[order[i]];
            values.other[i] = values.current[order[i]];
        }
    });
    std::swap(keys.current, keys.other);
    std::swap(values.current, values.other);
}

void inclusive_sum(void* workspace, size_t& bytes, const uint32_t* from, uint64_t* to, int64_t n, Stream) {
    bytes = 1;
    if (!workspace) return;
    launch_library(2, [=] {  // as CUB
        uint64_t sum = 0;
        for (int64_t i = 0; i < n; ++i) to[i] = sum += from[i];
    });
}

#else

void sort_pairs(void* workspace, size_t& bytes, Pair<uint32_t>& keys, Pair<uint32_t>& values, int64_t n, int bits,
                Stream stream) {
    cub::DoubleBuffer<uint32_t> k(keys.current, keys.other), v(values.current, values.other);
    check(cub::DeviceRadixSort::SortPairs(workspace, bytes, k, v, n, 0, bits, stream), "sort_pairs");
    keys = {k.Current(), k.Alternate()};
    values = {v.Current(), v.Alternate()};
}

void inclusive_sum(void* workspace, size_t& bytes, const uint32_t* from, uint64_t* to, int64_t n, Stream stream) {
    check(cub::DeviceScan::InclusiveScanInit(workspace, bytes, from, to, cuda::std::plus<uint64_t>{}, uint64_t{0}, n,
                                             stream),
          "inclusive_sum");
}

#endif

}  // namespace splat::gpu
