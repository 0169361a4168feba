// Vector and scalar quantization.
#pragma once

#include <cstdint>

#include "isa.h"

namespace splat::cpu {

// Codewords are packed in blocks of kBlock, component by component, [blocks][dims][kBlock], so that a
// vector holds one component of consecutive codewords.
constexpr int kCodewordBlock = 32;
constexpr int kScratchPerPoint = 32;

struct QuantizeKernels {
    // For each of `count` points [count, dims] the codeword of least |c|^2/2 + penalty/2 - x c. `bias` holds the
    // first two terms for every packed codeword. The smallest index among equals; 0 where no score is finite.
    // `scratch` has kScratchPerPoint floats for each point.
    void (*nearest)(const float* points, int64_t count, int dims, const float* packed, const float* bias, int64_t blocks,
                    float* scratch, int32_t* labels);
    // distances[i] = min(distances[i], weight |x_i - c|^2), returns their sum; weights may be null.
    double (*approach)(const float* points, const float* weights, int64_t count, int dims, const float* codeword,
                       float* distances);
};
SPLAT_DECLARE_KERNELS(QuantizeKernels, quantize)

// A partition of points and codewords into `count` cells, each a run of rows.
struct Cells {
    int64_t count;
    const int64_t* points;     // [count + 1] where each cell's points begin
    const int64_t* codewords;  // [count + 1] where each cell's codewords begin
};

// Labels [count] of points [count, dims] by codewords [size, dims] with penalties [size] (or null).
void nearest(const float* points, int64_t count, int dims, const float* codewords, const float* penalties,
             int64_t size, int32_t* labels, int threads);

// The same where a point is compared only with the codewords of the `reach` cells near [cells, reach] its own, which
// ascend. A cell whose near cells have no codeword gives the label 0.
void nearest_in_cells(const float* points, int dims, const float* codewords, const float* penalties, const Cells& cells,
                      const int64_t* near, int64_t reach, int32_t* labels, int threads);

// Sums over the points of each label: sums [size, dims] of weight x point, mass [size] of weights (1 where null).
// A point whose label lies outside [0, size) is left out.
void accumulate(const float* points, const float* weights, const int32_t* labels, int64_t count, int dims,
                int64_t size, double* sums, double* mass, int threads);

// k-means++ (Arthur & Vassilvitskii 2007): `size` of the points, each drawn with a probability proportional to
// weight x squared distance from those drawn before it. uniforms [size] in [0, 1); chosen [size] out.
// Returns how many were drawn: fewer where every point coincides with one drawn.
int64_t seed(const float* points, const float* weights, int64_t count, int dims, const double* uniforms, int64_t size,
             int64_t* chosen, int threads);

// Codewords of every cell by themselves: k-means++ and so many iterations of Lloyd's algorithm, in which a codeword
// without points stays. cells.codewords says how many each cell gets; drawn [cells] out: how many it has, fewer
// where points coincide. uniforms has one value a codeword.
void train_cells(const float* points, const float* weights, int dims, const Cells& cells, const double* uniforms,
                 int iterations, float* codewords, int64_t* drawn, int threads);

// The partition of `count` sorted values with positive weights into `size` runs of least squared error, by
// dynamic programming. ends [size] out: one past the last value of each run. size <= count.
void partition(const double* values, const double* weights, int64_t count, int size, int64_t* ends);

}  // namespace splat::cpu
