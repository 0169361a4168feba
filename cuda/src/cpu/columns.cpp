#include "columns.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "thread_pool.h"

namespace splat::cpu {
namespace {

static_assert(std::endian::native == std::endian::little, "the codecs read and write little-endian numbers in place");

constexpr int64_t kGrain = 1 << 12;
constexpr int64_t kAhead = 8;  // rows
constexpr int kLine = 16;      // floats of a cache line

}  // namespace

void gather_floats(const uint8_t* rows, int64_t row_bytes, int64_t count, const int64_t* offsets, int columns,
                   float* out, int64_t out_stride, int threads) {
    parallel_ranges(threads, count, kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const uint8_t* row = rows + i * row_bytes;
            float* to = out + i * out_stride;
            for (int c = 0; c < columns; ++c) std::memcpy(to + c, row + offsets[c], sizeof(float));
        }
    });
}

void scatter_floats(const float* in, int64_t in_stride, int64_t count, const int64_t* offsets, int columns,
                    uint8_t* rows, int64_t row_bytes, int threads) {
    parallel_ranges(threads, count, kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const float* from = in + i * in_stride;
            uint8_t* row = rows + i * row_bytes;
            for (int c = 0; c < columns; ++c) std::memcpy(row + offsets[c], from + c, sizeof(float));
        }
    });
}

void expand_bytes(const uint8_t* bytes, int64_t row_bytes, int64_t count, int columns, const int32_t* target,
                  const float* table, int64_t table_stride, float* out, int64_t out_stride, int threads) {
    parallel_ranges(threads, count, kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const uint8_t* row = bytes + i * row_bytes;
            float* to = out + i * out_stride;
            for (int c = 0; c < columns; ++c) to[target[c]] = table[c * table_stride + row[c]];
        }
    });
}

void pack_bytes(const float* in, int64_t in_stride, int64_t count, const int64_t* order, int columns,
                const int32_t* source, const float* gain, const float* bias, const int32_t* step, uint8_t* out,
                int threads) {
    // Of every column: the highest level, and the step as a float, in which all products here are exact.
    std::vector<float> tops(static_cast<size_t>(columns)), steps(tops);
    int last = 0;
    for (int c = 0; c < columns; ++c) {
        tops[c] = static_cast<float>((255 + step[c] - 1) / step[c]), steps[c] = static_cast<float>(step[c]);
        last = std::max(last, source[c]);
    }
    parallel_ranges(threads, count, kGrain, [&](int64_t begin, int64_t end) {
        // Gathered first, so that the arithmetic is on neighbours and the compiler may use vectors.
        std::vector<float> gathered(static_cast<size_t>(columns));
        float* values = gathered.data();
        const float *top = tops.data(), *each = steps.data();
        for (int64_t i = begin; i < end; ++i) {
            const float* row = in + (order ? order[i] : i) * in_stride;
            if (order && i + kAhead < end) {
                const float* next = in + order[i + kAhead] * in_stride;
                for (int c = 0; c <= last; c += kLine) __builtin_prefetch(next + c);
            }
            for (int c = 0; c < columns; ++c) values[c] = row[source[c]];
            uint8_t* to = out + i * columns;
            for (int c = 0; c < columns; ++c) {
                const float value = gain[c] * values[c] + bias[c];
                const float level = std::min(std::max(value, 0.0f), top[c]);
                const float whole = static_cast<float>(static_cast<int>(level + 0.5f));
                to[c] = static_cast<uint8_t>(static_cast<int>(std::min(255.0f, each[c] * whole)));
            }
        }
    });
}

bool all_finite(const float* values, int64_t count, int threads) {
    std::atomic<bool> good{true};
    parallel_ranges(threads, count, kGrain * 16, [&](int64_t begin, int64_t end) {
        // All bits of the exponent are set in those that are not; integers, so that the compiler may use vectors.
        uint32_t bad = 0;
        for (int64_t i = begin; i < end; ++i) {
            uint32_t bits;
            std::memcpy(&bits, values + i, sizeof bits);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        if (bad) good.store(false, std::memory_order_relaxed);
    });
    return good;
}

}  // namespace splat::cpu
