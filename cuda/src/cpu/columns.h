// Rows of files and columns of scenes: the inner loops of the codecs that numpy would run several times over.
#pragma once

#include <cstdint>
#include <vector>

namespace splat::cpu {

// Numbers in rows of bytes, little-endian, at any alignment.
enum class Number { float32, float16, uint16 };

// out[i, c] = the number at byte offsets[c] of row i. Rows are `row_bytes` apart.
void gather(const uint8_t* rows, int64_t row_bytes, int64_t count, Number kind, const int64_t* offsets, int columns,
            float* out, int64_t out_stride, int threads);

// Values [rows, columns] of a scene, and where in a row of bytes each column stands as float32.
template <class Float>
struct Columns {
    const int64_t* offsets;
    int columns;
    Float* values;
    int64_t stride;
};

// The first errno of a read or write, 0 for none, or kShort where the file ends early.
constexpr int kShort = -1;

// Reads `count` rows from byte `start` of the open file into columns, without the whole file in memory.
int read_columns(int file, int64_t start, int64_t row_bytes, int64_t count, const std::vector<Columns<float>>& columns,
                 int threads);

// The reverse; bytes of a row that are no column's are 0.
int write_columns(int file, int64_t start, int64_t row_bytes, int64_t count,
                  const std::vector<Columns<const float>>& columns, int threads);

// The bytes from `start`, as many as `out` has.
int read_bytes(int file, int64_t start, int64_t size, uint8_t* out, int threads);

// out[i, k, c] = signs[k] parts[k][i, c], c < 3: each part [count, 3] with rows `strides[k]` floats apart.
void interleave(const float* const* parts, const int64_t* strides, const float* signs, int64_t count, int parts_count,
                float* out, int threads);

// The same of an open file: part k, [count, 3] float32 without gaps, begins at byte starts[k].
int read_interleaved(int file, const int64_t* starts, const float* signs, int64_t count, int parts_count, float* out,
                     int threads);

// Three fields of each packed number, the first above the second above the third and this in the lowest of `shift`'s
// bits, as shares of their largest value between the bounds [chunks, 3] of their chunk:
// out[i, c] = low + share (high - low). Packed numbers are `stride` apart, a chunk holds `chunk` of them.
void unpack_fields(const uint32_t* packed, int64_t stride, int64_t count, int shift, const int* bits, const float* low,
                   const float* high, int64_t chunk, float* out, int64_t out_stride, int threads);

// Unit quaternions of 2-10-10-10 bits: the place of the largest component, then the others in order, whose values
// `table` [1024] has. Component p goes to column slots[p] of out [count, 4], times signs[p].
void unpack_largest(const uint32_t* packed, int64_t stride, int64_t count, const float* table, const int* slots,
                    const float* signs, float* out, int threads);

// out[i, target[c]] = table_c[bytes[i, c]], with tables of 256 values `table_stride` apart: 0 for one that all share.
void expand_bytes(const uint8_t* bytes, int64_t row_bytes, int64_t count, int columns, const int32_t* target,
                  const float* table, int64_t table_stride, float* out, int64_t out_stride, int threads);

// out[i, c] = min(255, step[c] round(gain[c] in[order[i], source[c]] + bias[c])), not below 0: the nearest multiple
// of `step`, or 255, if `gain` and `bias` give multiples of it. `order` may be null.
void pack_bytes(const float* in, int64_t in_stride, int64_t count, const int64_t* order, int columns,
                const int32_t* source, const float* gain, const float* bias, const int32_t* step, uint8_t* out,
                int threads);

// Whether no value is NaN or infinite.
bool all_finite(const float* values, int64_t count, int threads);

}  // namespace splat::cpu
