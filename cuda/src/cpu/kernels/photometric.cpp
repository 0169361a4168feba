// The photometric loss, swept down a band of rows.
//
// Four rows at a time go through: load (x, y, x^2 + y^2, x y) -> vertical window sums -> horizontal window
// sums, SSIM and its three derivatives -> vertical -> horizontal window sums of the derivatives, gradient.
// What is still needed of the rows above lies in rings of 16 rows; nothing else is stored.
#include "photometric.h"

#include "stripes.h"

namespace splat::cpu::SPLAT_ISA {
namespace {

constexpr int kChannels = 3;
constexpr int kStep = 4;                              // rows at a time
constexpr int kReach = kStep - 1 + 2 * kSsimRadius;   // last row less first row that a step reads
constexpr int kRing = 16;                             // rows kept, a power of two above kReach
constexpr int kHalo = kChannels * kSsimRadius;        // vectors
constexpr int kBorder = 2 * kSsimRadius;              // columns beside a band that its gradient depends on
constexpr int kInputs = 4, kDerivatives = 3;
static_assert(kRing > kReach && kHalo <= kLanes);

// Vectors a striped row of so many columns has.
SPLAT_INLINE int row_length(int columns) {
    const int length = (kChannels * columns + kLanes - 1) / kLanes;
    return length < kLanes ? kLanes : length;
}

int64_t scratch(int columns) {
    const int64_t row = static_cast<int64_t>(kLanes) * row_length(columns + 2 * kBorder);
    const int64_t halo = 2 * kHalo * kLanes;
    return row * (kRing * (kInputs + 1 + kDerivatives) + 4) + (row + halo) * kStep * kInputs;
}

struct Sweep {
    const Photometric& job;
    const Band& band;
    int first, columns;  // the band's columns and the border beside them, as far as the image goes
    int length;          // of the striped rows
    // Rings: row r lies at [r % kRing].
    float* input[kInputs][kRing];  // x, y, x^2 + y^2, x y
    float* keep[kRing];            // 1 where the pixel counts, 0 where it is masked or outside the image
    float* derivative[kDerivatives][kRing];
    float* column_sums[kInputs][kStep];  // with halo
    float* own;                          // 1 in the band's columns, 0 in the border
    float *row_x, *row_y, *row_keep;     // not striped

    SPLAT_INLINE Sweep(const Photometric& j, const Band& b, float* memory) : job(j), band(b) {
        first = b.left > kBorder ? b.left - kBorder : 0;
        columns = (b.right + kBorder < j.width ? b.right + kBorder : j.width) - first;
        length = row_length(columns);
        const int row = length * kLanes;
        auto take = [&](int floats) { memory += floats; return memory - floats; };
        for (auto& ring : input) for (float*& p : ring) p = take(row);
        for (float*& p : keep) p = take(row);
        for (auto& ring : derivative) for (float*& p : ring) p = take(row);
        for (auto& rows : column_sums)
            for (float*& p : rows) p = take(row + 2 * kHalo * kLanes) + kHalo * kLanes;
        own = take(row), row_x = take(row), row_y = take(row), row_keep = take(row);

        clear(row_x), clear(row_y), clear(row_keep);
        for (int e = kChannels * (b.left - first); e < kChannels * (b.right - first); ++e) row_keep[e] = 1.0f;
        to_stripes(row_keep, length, own);
        clear(row_keep);
        if (!j.mask) for (int e = 0; e < kChannels * columns; ++e) row_keep[e] = 1.0f;
    }

    SPLAT_INLINE void clear(float* row) const {
        for (int i = 0; i < length; ++i) F(0.0f).store(row + i * kLanes);
    }

    SPLAT_INLINE bool inside(int row) const { return row >= 0 && row < job.height; }

    void load(int row) {
        const int slot = row & (kRing - 1);
        if (!inside(row)) {
            for (auto& ring : input) clear(ring[slot]);
            return;
        }
        const int64_t start = static_cast<int64_t>(row) * job.width + first;
        const int values = kChannels * columns;
        const float* image = job.image + kChannels * start;
        const uint8_t* target = job.target + kChannels * start;
        for (int e = 0; e < values; ++e) row_y[e] = static_cast<float>(target[e]) / 255.0f;
        if (job.mask) {
            const uint8_t* mask = job.mask + start;
            for (int c = 0; c < columns; ++c)
                for (int e = kChannels * c; e < kChannels * (c + 1); ++e) {
                    row_keep[e] = mask[c] ? 1.0f : 0.0f;
                    row_x[e] = mask[c] ? image[e] : row_y[e];
                }
        } else {
            for (int e = 0; e < values; ++e) row_x[e] = image[e];
        }
        float *x = input[0][slot], *y = input[1][slot];
        to_stripes(row_x, length, x);
        to_stripes(row_y, length, y);
        to_stripes(row_keep, length, keep[slot]);
        for (int e = 0; e < length * kLanes; e += kLanes) {
            const F vx = F::load(x + e), vy = F::load(y + e);
            fma(vx, vx, vy * vy).store(input[2][slot] + e);
            (vx * vy).store(input[3][slot] + e);
        }
    }

    // Window sums down the columns for rows [row, row + kStep), with halo.
    void sum_columns(float* const (&ring)[kRing], int row, float* const (&out)[kStep]) const {
        const float* rows[kReach + 1];
        for (int k = 0; k <= kReach; ++k) rows[k] = ring[(row - kSsimRadius + k) & (kRing - 1)];
        for (int e = 0; e < length * kLanes; e += kLanes) {
            F total[kStep] = {F(0.0f), F(0.0f), F(0.0f), F(0.0f)};
#pragma GCC unroll 16
            for (int k = 0; k <= kReach; ++k) {
                const F value = F::load(rows[k] + e);
#pragma GCC unroll 4
                for (int r = 0; r < kStep; ++r) {
                    const int distance = k - r < kSsimRadius ? kSsimRadius - (k - r) : k - r - kSsimRadius;
                    if (distance <= kSsimRadius) total[r] = fma(F(kSsimWeights[distance]), value, total[r]);
                }
            }
            for (int r = 0; r < kStep; ++r) total[r].store(out[r] + e);
        }
        for (float* p : out) fill_halo(p, length, kHalo);
    }

    // Window sum along a row, at one vector of it.
    static SPLAT_INLINE F sum_row(const float* at) {
        // Two chains, as one would wait for its own additions.
        F left = F(kSsimWeights[0]) * F::load(at);
        F right = F(kSsimWeights[1]) * F::load(at + kChannels * kLanes);
#pragma GCC unroll 5
        for (int k = 1; k <= kSsimRadius; ++k) {
            left = fma(F(kSsimWeights[k]), F::load(at - k * kChannels * kLanes), left);
            if (k > 1) right = fma(F(kSsimWeights[k]), F::load(at + k * kChannels * kLanes), right);
        }
        return left + right;
    }

    // SSIM of row `row`, the r-th of the step, and its derivatives.
    void compare(int row, int r) {
        const int slot = row & (kRing - 1);
        if (!inside(row)) {
            for (auto& ring : derivative) clear(ring[slot]);
            return;
        }
        F total(0.0f);
        for (int e = 0; e < length * kLanes; e += kLanes) {
            const SsimPoint<F> point = ssim_point(sum_row(column_sums[0][r] + e), sum_row(column_sums[1][r] + e),
                                                  sum_row(column_sums[2][r] + e), sum_row(column_sums[3][r] + e));
            const F kept = F::load(keep[slot] + e);
            (point.d_mean * kept).store(derivative[0][slot] + e);
            (point.d_square * kept).store(derivative[1][slot] + e);
            (point.d_product * kept).store(derivative[2][slot] + e);
            total = fma(F(1.0f) - point.value, kept * F::load(own + e), total);
        }
        if (row >= band.top && row < band.bottom) band.dissimilarity[row] = sum(total);
    }

    // L1 of row `row`, the r-th of the step, and the gradient of both terms.
    void differentiate(int row, int r) {
        const int slot = row & (kRing - 1);
        const F l1(job.l1_weight), ssim(-job.ssim_weight), zero(0.0f);
        F total = zero;
        for (int e = 0; e < length * kLanes; e += kLanes) {
            const F x = F::load(input[0][slot] + e), y = F::load(input[1][slot] + e), difference = x - y;
            total = fma(abs(difference), F::load(own + e), total);
            if (!job.gradient) continue;
            F slope = fma(x + x, sum_row(column_sums[1][r] + e), sum_row(column_sums[0][r] + e));
            slope = fma(y, sum_row(column_sums[2][r] + e), slope);
            const F sign = masked(difference > zero, l1) - masked(difference < zero, l1);
            (fma(ssim, slope, sign) * F::load(keep[slot] + e)).store(column_sums[3][r] + e);
        }
        band.l1[row] = sum(total);
        if (!job.gradient) return;
        from_stripes(column_sums[3][r], length, row_x);
        float* out = job.gradient + kChannels * (static_cast<int64_t>(row) * job.width + band.left);
        const float* mine = row_x + kChannels * (band.left - first);
        for (int e = 0; e < kChannels * (band.right - band.left); ++e) out[e] = mine[e];
        // The next row is loaded over it; beyond the image's columns it must be zero again.
        for (int e = kChannels * columns; e < length * kLanes; ++e) row_x[e] = 0.0f;
    }

    void run() {
        // A step compares rows [row, row + kStep) and then differentiates the rows kSsimRadius above them,
        // beginning early enough for the first of those to have all its neighbours.
        constexpr int lead = (2 * kSsimRadius + kStep - 1) / kStep * kStep;
        int row = band.top + kSsimRadius - lead;
        int loaded = row - kSsimRadius;
        for (int done; (done = row - kSsimRadius) < band.bottom; row += kStep) {
            for (; loaded < row + kStep + kSsimRadius; ++loaded) load(loaded);
            for (int q = 0; q < kInputs; ++q) sum_columns(input[q], row, column_sums[q]);
            for (int r = 0; r < kStep; ++r) compare(row + r, r);
            if (done < band.top) continue;
            if (job.gradient)
                for (int q = 0; q < kDerivatives; ++q) sum_columns(derivative[q], done, column_sums[q]);
            for (int r = 0; r < kStep && done + r < band.bottom; ++r) differentiate(done + r, r);
        }
    }
};

void band(const Photometric& job, const Band& part, float* memory) { Sweep(job, part, memory).run(); }

}  // namespace

extern const PhotometricKernels photometric{&scratch, &band};

}  // namespace splat::cpu::SPLAT_ISA
