#include "columns.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "thread_pool.h"

namespace splat::cpu {
namespace {

static_assert(std::endian::native == std::endian::little, "the codecs read and write little-endian numbers in place");

constexpr int64_t kGrain = 1 << 12;
constexpr int64_t kAhead = 8;  // rows
constexpr int kLine = 16;      // floats of a cache line

// The bytes that a thread takes from a file or hands to it at a time: they stay in its cache.
constexpr int64_t kPiece = 1 << 16;

// body(begin, end) for as many equal shares of the range as there are threads. What is written is touched for the
// first time here, and two threads that touch neighbours in one large page would both clear it.
template <class Body>
void parallel_shares(int threads, int64_t count, Body&& body) {
    const int64_t shares = std::max(1, threads);
    parallel_for(threads, shares, [&](int64_t k) {
        const int64_t begin = count * k / shares, end = count * (k + 1) / shares;
        if (begin < end) body(begin, end);
    });
}

template <class T>
inline T load(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

struct FromFloat {
    static float get(const uint8_t* from) { return load<float>(from); }
};

struct FromUint16 {
    static float get(const uint8_t* from) { return load<uint16_t>(from); }
};

// By normal numbers alone, as the threads take denormal ones for zero.
struct FromHalf {
    static float get(const uint8_t* from) {
        const uint32_t half = load<uint16_t>(from), exponent = half & 0x7c00u;
        uint32_t wide = ((half & 0x7fffu) << 13) + (112u << 23);
        if (exponent == 0x7c00u) wide += 112u << 23;
        // A denormal half is a multiple of 2^-24: the sum of it and 2^-14 is a number with those bits.
        const float small = std::bit_cast<float>(wide + (1u << 23)) - 0x1p-14f;
        const uint32_t size = exponent == 0 ? std::bit_cast<uint32_t>(small) : wide;
        return std::bit_cast<float>(size | (half & 0x8000u) << 16);
    }
};

template <class From>
void gather_rows(const uint8_t* rows, int64_t row_bytes, int64_t count, const int64_t* offsets, int columns, float* out,
                 int64_t out_stride) {
    const auto run = [=](auto width) {
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t* row = rows + i * row_bytes;
            float* to = out + i * out_stride;
            for (int c = 0; c < width; ++c) to[c] = From::get(row + offsets[c]);
        }
    };
    // Known widths are written out: a loop of three costs more than what it does.
    if (columns == 1) run(std::integral_constant<int, 1>());
    else if (columns == 3) run(std::integral_constant<int, 3>());
    else if (columns == 4) run(std::integral_constant<int, 4>());
    else run(columns);
}

template <class From>
void gather_kind(const uint8_t* rows, int64_t row_bytes, int64_t count, const int64_t* offsets, int columns, float* out,
                 int64_t out_stride, int threads) {
    parallel_shares(threads, count, [=](int64_t begin, int64_t end) {
        gather_rows<From>(rows + begin * row_bytes, row_bytes, end - begin, offsets, columns, out + begin * out_stride,
                          out_stride);
    });
}

// `transfer` (pread or pwrite) of all the bytes, in as many calls as it takes.
template <class Transfer, class Byte>
int whole(Transfer transfer, int file, Byte* bytes, int64_t size, int64_t start) {
    while (size > 0) {
        const ssize_t done = transfer(file, bytes, static_cast<size_t>(size), static_cast<off_t>(start));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return done < 0 ? errno : kShort;
        bytes += done, start += done, size -= done;
    }
    return 0;
}

// body(begin, end, buffer) over pieces of the rows, with room for each piece; stops at the first that is not 0.
template <class Body>
int pieces(int64_t row_bytes, int64_t count, int threads, Body&& body) {
    std::atomic<int> result{0};
    const int64_t rows = std::max<int64_t>(1, kPiece / row_bytes);
    parallel_shares(threads, count, [&](int64_t begin, int64_t end) {
        const std::unique_ptr<uint8_t[]> buffer(new uint8_t[static_cast<size_t>(rows * row_bytes)]);
        for (int64_t i = begin; i < end && result.load(std::memory_order_relaxed) == 0; i += rows)
            if (const int found = body(i, std::min(end, i + rows), buffer.get())) result = found;
    });
    return result;
}

// Rows whose values stay in the cache until all parts of them have come.
constexpr int64_t kBlock = 1 << 10;

void place_part(const float* from, int64_t stride, float sign, int64_t rows, float* to, int64_t to_stride) {
    for (int64_t i = 0; i < rows; ++i, from += stride, to += to_stride)
        to[0] = sign * from[0], to[1] = sign * from[1], to[2] = sign * from[2];
}

}  // namespace

void gather(const uint8_t* rows, int64_t row_bytes, int64_t count, Number kind, const int64_t* offsets, int columns,
            float* out, int64_t out_stride, int threads) {
    const auto run = kind == Number::float32   ? gather_kind<FromFloat>
                     : kind == Number::float16 ? gather_kind<FromHalf>
                                               : gather_kind<FromUint16>;
    run(rows, row_bytes, count, offsets, columns, out, out_stride, threads);
}

int read_columns(int file, int64_t start, int64_t row_bytes, int64_t count, const std::vector<Columns<float>>& columns,
                 int threads) {
    return pieces(row_bytes, count, threads, [&](int64_t begin, int64_t end, uint8_t* rows) {
        const int found = whole(pread, file, rows, (end - begin) * row_bytes, start + begin * row_bytes);
        if (found == 0)
            for (const auto& part : columns)
                gather_rows<FromFloat>(rows, row_bytes, end - begin, part.offsets, part.columns,
                                       part.values + begin * part.stride, part.stride);
        return found;
    });
}

int write_columns(int file, int64_t start, int64_t row_bytes, int64_t count,
                  const std::vector<Columns<const float>>& columns, int threads) {
    return pieces(row_bytes, count, threads, [&](int64_t begin, int64_t end, uint8_t* rows) {
        std::memset(rows, 0, static_cast<size_t>((end - begin) * row_bytes));
        for (const auto& part : columns)
            for (int64_t i = begin; i < end; ++i) {
                const float* from = part.values + i * part.stride;
                uint8_t* row = rows + (i - begin) * row_bytes;
                for (int c = 0; c < part.columns; ++c) std::memcpy(row + part.offsets[c], from + c, sizeof(float));
            }
        return whole(pwrite, file, rows, (end - begin) * row_bytes, start + begin * row_bytes);
    });
}

int read_bytes(int file, int64_t start, int64_t size, uint8_t* out, int threads) {
    std::atomic<int> result{0};
    parallel_shares(threads, size, [&](int64_t begin, int64_t end) {
        if (const int found = whole(pread, file, out + begin, end - begin, start + begin)) result = found;
    });
    return result;
}

void interleave(const float* const* parts, const int64_t* strides, const float* signs, int64_t count, int parts_count,
                float* out, int threads) {
    parallel_shares(threads, count, [=](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; block += kBlock)
            for (int k = 0; k < parts_count; ++k)
                place_part(parts[k] + block * strides[k], strides[k], signs[k], std::min(kBlock, end - block),
                           out + 3 * (block * parts_count + k), 3 * parts_count);
    });
}

int read_interleaved(int file, const int64_t* starts, const float* signs, int64_t count, int parts_count, float* out,
                     int threads) {
    std::atomic<int> result{0};
    parallel_shares(threads, count, [&](int64_t begin, int64_t end) {
        float buffer[3 * kBlock];
        for (int64_t block = begin; block < end && result.load(std::memory_order_relaxed) == 0; block += kBlock) {
            const int64_t rows = std::min(kBlock, end - block), size = 3 * static_cast<int64_t>(sizeof(float));
            for (int k = 0; k < parts_count; ++k) {
                const int found = whole(pread, file, reinterpret_cast<uint8_t*>(buffer), rows * size,
                                        starts[k] + block * size);
                if (found != 0) result = found;
                else place_part(buffer, 3, signs[k], rows, out + 3 * (block * parts_count + k), 3 * parts_count);
            }
        }
    });
    return result;
}

void unpack_fields(const uint32_t* packed, int64_t stride, int64_t count, int shift, const int* bits, const float* low,
                   const float* high, int64_t chunk, float* out, int64_t out_stride, int threads) {
    const int shifts[3] = {shift + bits[1] + bits[2], shift + bits[2], shift};
    uint32_t masks[3];
    for (int c = 0; c < 3; ++c) masks[c] = (1u << bits[c]) - 1;
    parallel_shares(threads, (count + chunk - 1) / chunk, [=](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) {
            const float *floor = low + 3 * block, *ceiling = high + 3 * block;
            const float extent[3] = {ceiling[0] - floor[0], ceiling[1] - floor[1], ceiling[2] - floor[2]};
            const int64_t end = std::min(count, (block + 1) * chunk);
            for (int64_t i = block * chunk; i < end; ++i) {
                const uint32_t word = packed[i * stride];
                float* to = out + i * out_stride;
                for (int c = 0; c < 3; ++c) {
                    const float level = static_cast<float>(static_cast<int32_t>(word >> shifts[c] & masks[c]));
                    to[c] = level / static_cast<float>(masks[c]) * extent[c] + floor[c];
                }
            }
        }
    });
}

void unpack_largest(const uint32_t* packed, int64_t stride, int64_t count, const float* table, const int* slots,
                    const float* signs, float* out, int threads) {
    parallel_shares(threads, count, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const uint32_t word = packed[i * stride];
            const float three[3] = {table[word >> 20 & 1023], table[word >> 10 & 1023], table[word & 1023]};
            const float rest = 1.0f - (three[0] * three[0] + three[1] * three[1] + three[2] * three[2]);
            const int place = static_cast<int>(word >> 30);
            float* to = out + 4 * i;
            for (int p = 0, next = 0; p < 4; ++p)
                to[slots[p]] = signs[p] * (p == place ? std::sqrt(std::max(0.0f, rest)) : three[next++]);
        }
    });
}

void expand_bytes(const uint8_t* bytes, int64_t row_bytes, int64_t count, int columns, const int32_t* target,
                  const float* table, int64_t table_stride, float* out, int64_t out_stride, int threads) {
    parallel_shares(threads, count, [=](int64_t begin, int64_t end) {
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
