#include "quantize.h"

#include "simd.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

// Points whose scores with a block of codewords stay in registers.
#if defined(__AVX512F__)
constexpr int kTile = 12;
#else
constexpr int kTile = 2;
#endif
// Codewords that stay in the second-level cache while all points of a task pass by, in floats.
constexpr int64_t kResident = 1 << 16;
constexpr float kInfinity = __builtin_huge_valf();

static_assert(kCodewordBlock == 2 * kLanes);

SPLAT_INLINE void keep_smaller(F score, int64_t vector, F& best, I& where) {
    const M smaller = score < best;
    best = select(smaller, score, best);
    where = select(smaller, I(static_cast<int32_t>(vector)), where);
}

// Per point, `best` and `where` hold for each lane the least score and the vector of codewords that gave it.
void nearest(const float* points, int64_t count, int dims, const float* packed, const float* bias, int64_t blocks,
             float* scratch, int32_t* labels) {
    float* best = scratch;
    int32_t* where = reinterpret_cast<int32_t*>(scratch + count * kLanes);
    for (int64_t i = 0; i < count; ++i) {
        F(kInfinity).store(best + i * kLanes);
        I(0).store(where + i * kLanes);
    }
    int64_t chunk = kResident / (static_cast<int64_t>(dims) * kCodewordBlock);
    if (chunk < 1) chunk = 1;
    for (int64_t begin = 0; begin < blocks; begin += chunk) {
        const int64_t end = begin + chunk < blocks ? begin + chunk : blocks;
        for (int64_t tile = 0; tile < count; tile += kTile) {
            const float* x[kTile];
            for (int p = 0; p < kTile; ++p) x[p] = points + (tile + p < count ? tile + p : count - 1) * dims;
            for (int64_t block = begin; block < end; ++block) {
                const float* c = packed + block * dims * kCodewordBlock;
                F score[kTile][2];
                for (int p = 0; p < kTile; ++p)
                    for (int v = 0; v < 2; ++v) score[p][v] = F::load(bias + (2 * block + v) * kLanes);
                for (int d = 0; d < dims; ++d, c += kCodewordBlock) {
                    const F c0 = F::load(c), c1 = F::load(c + kLanes);
                    for (int p = 0; p < kTile; ++p) {
                        const F component(x[p][d]);
                        score[p][0] = fnma(component, c0, score[p][0]);
                        score[p][1] = fnma(component, c1, score[p][1]);
                    }
                }
                const int points_here = count - tile < kTile ? static_cast<int>(count - tile) : kTile;
                for (int p = 0; p < points_here; ++p) {
                    float* at = best + (tile + p) * kLanes;
                    int32_t* index = where + (tile + p) * kLanes;
                    F least = F::load(at);
                    I vector = I::load(index);
                    keep_smaller(score[p][0], 2 * block, least, vector);
                    keep_smaller(score[p][1], 2 * block + 1, least, vector);
                    least.store(at);
                    vector.store(index);
                }
            }
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        float least = kInfinity;
        int32_t label = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            const float score = best[i * kLanes + lane];
            const int32_t index = where[i * kLanes + lane] * kLanes + lane;
            if (score < least || (score == least && score < kInfinity && index < label)) {
                least = score;
                label = index;
            }
        }
        labels[i] = label;
    }
}

double approach(const float* points, const float* weights, int64_t count, int dims, const float* codeword,
                float* distances) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i, points += dims) {
        F squares(0.0f);
        for (int d = 0; d < dims; d += kLanes) {
            const F difference = F::load(points + d, dims - d) - F::load(codeword + d, dims - d);
            squares = fma(difference, difference, squares);
        }
        const float distance = weights ? weights[i] * sum(squares) : sum(squares);
        if (distance < distances[i]) distances[i] = distance;
        total += distances[i];
    }
    return total;
}

}  // namespace

extern const QuantizeKernels quantize{&nearest, &approach};

}  // namespace splat::cpu::SPLAT_ISA
