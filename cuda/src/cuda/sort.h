// The two library algorithms that the rasterizer needs: CUB's on the device, std's under emulation.
// Both are called twice: with a null workspace they only set `bytes` to the size that it must have.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device.h"

namespace splat::gpu {

// Two buffers of n elements; an algorithm reads `current` and may swap them.
template <class T>
struct Pair {
    T *current, *other;
};

// Stable sort of n pairs by the bits [0, bits) of the keys. The result is `current` of both.
void sort_pairs(void* workspace, size_t& bytes, Pair<uint32_t>& keys, Pair<uint32_t>& values, int64_t n, int bits,
                Stream stream);

// to[i] = from[0] + ... + from[i].
void inclusive_sum(void* workspace, size_t& bytes, const uint32_t* from, uint64_t* to, int64_t n, Stream stream);

}  // namespace splat::gpu
