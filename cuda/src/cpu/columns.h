// Rows of files and columns of scenes: the inner loops of the codecs that numpy would run several times over.
#pragma once

#include <cstdint>

namespace splat::cpu {

// out[i, c] = the little-endian float32 at byte offsets[c] of row i. Rows are `row_bytes` apart.
void gather_floats(const uint8_t* rows, int64_t row_bytes, int64_t count, const int64_t* offsets, int columns,
                   float* out, int64_t out_stride, int threads);

// The reverse: places `in` [count, columns] at those offsets of every row.
void scatter_floats(const float* in, int64_t in_stride, int64_t count, const int64_t* offsets, int columns,
                    uint8_t* rows, int64_t row_bytes, int threads);

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
