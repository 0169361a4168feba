// Two passes of one scheme. A block sweeps down a band of rows, kStep rows at a time; a thread owns a column
// of elements (three a pixel, as they lie in memory) and keeps the rows around it in registers. It sums
// windows down its column, leaves the sums in shared memory, and sums along the row what its neighbours left.
// The first pass compares (SSIM, its derivatives, the value); the second blurs the derivatives to a gradient.
#include "photometric.h"

namespace splat::gpu {
namespace {

constexpr int kChannels = 3;
constexpr int kThreads = 128;
constexpr int kHalo = kChannels * kSsimRadius;  // elements that a window reaches to each side
constexpr int kOwn = kThreads - 2 * kHalo;      // elements of a row that a block writes
constexpr int kRows = 32;                       // rows of a band: (kRows + 2 kSsimRadius) / kRows are read
constexpr int kStep = 4;
constexpr int kHeld = kStep + 2 * kSsimRadius;  // rows in registers
constexpr int kSums = 3;                        // of a block: |x - y|, 1 - SSIM, kept elements
static_assert(kRows % kStep == 0);

// Literal indices, as device code has no table of constants in memory.
struct Weights {
    float at[kSsimRadius + 1] = {kSsimWeights[0], kSsimWeights[1], kSsimWeights[2],
                                 kSsimWeights[3], kSsimWeights[4], kSsimWeights[5]};
};
static_assert(kSsimRadius == 5);

// The part of the image that a block sweeps, and this thread's column in it.
struct Band {
    int top, bottom;
    int64_t row_length;  // elements
    int64_t column;      // this thread's element of each row; outside the image in its halo
    bool inside, owned;

    SPLAT_DEVICE Band(int height, int width) {
        row_length = static_cast<int64_t>(kChannels) * width;
        const int64_t across = (row_length + kOwn - 1) / kOwn;
        top = static_cast<int>(blockIdx.x / across) * kRows;
        bottom = top + kRows < height ? top + kRows : height;
        const int at = static_cast<int>(threadIdx.x) - kHalo;
        column = static_cast<int64_t>(blockIdx.x % across) * kOwn + at;
        inside = column >= 0 && column < row_length;
        owned = inside && at >= 0 && at < kOwn;
    }
};

// Calls use(row, element, values, means) for every element that this thread owns: its kValues values and
// the window means of the kMeans quantities that expand(values, quantities) makes of the values around it.
// load(element, values) reads them. Outside the image every quantity is zero.
template <int kValues, int kMeans, class Load, class Expand, class Use>
SPLAT_DEVICE void sweep(const Band& band, int height, Load load, Expand expand, Use use) {
    // Two of them, so that one barrier a step keeps those who write the next apart from those who read this.
    __shared__ float columns[2][kMeans][kStep][kThreads];
    const Weights weights;
    float held[kHeld][kValues];
    const auto fetch = [&](int row, float(&values)[kValues]) {
        for (float& value : values) value = 0.0f;
        if (band.inside && row >= 0 && row < height) load(row * band.row_length + band.column, values);
    };
#pragma unroll
    for (int k = 0; k < 2 * kSsimRadius; ++k) fetch(band.top - kSsimRadius + k, held[k]);

    int buffer = 0;
    for (int row = band.top; row < band.bottom; row += kStep, buffer ^= 1) {
        float sums[kMeans][kStep] = {};
#pragma unroll
        for (int r = 0; r < kStep; ++r) fetch(row + kSsimRadius + r, held[2 * kSsimRadius + r]);
#pragma unroll
        for (int k = 0; k < kHeld; ++k) {
            float quantities[kMeans];
            expand(held[k], quantities);
#pragma unroll
            for (int r = 0; r < kStep; ++r) {
                const int distance = k - r < kSsimRadius ? kSsimRadius - (k - r) : k - r - kSsimRadius;
                if (distance > kSsimRadius) continue;
#pragma unroll
                for (int q = 0; q < kMeans; ++q) sums[q][r] = fma(weights.at[distance], quantities[q], sums[q][r]);
            }
        }
#pragma unroll
        for (int q = 0; q < kMeans; ++q)
#pragma unroll
            for (int r = 0; r < kStep; ++r) columns[buffer][q][r][threadIdx.x] = sums[q][r];
        __syncthreads();
        if (band.owned) {
#pragma unroll
            for (int r = 0; r < kStep; ++r) {
                if (row + r >= band.bottom) break;
                float means[kMeans];
#pragma unroll
                for (int q = 0; q < kMeans; ++q) {
                    const float* at = columns[buffer][q][r] + threadIdx.x;
                    float sum = weights.at[0] * at[0];
#pragma unroll
                    for (int d = 1; d <= kSsimRadius; ++d)
                        sum = fma(weights.at[d], at[-kChannels * d] + at[kChannels * d], sum);
                    means[q] = sum;
                }
                use(row + r, (row + r) * band.row_length + band.column, held[kSsimRadius + r], means);
            }
        }
#pragma unroll
        for (int k = 0; k < 2 * kSsimRadius; ++k)
#pragma unroll
            for (int v = 0; v < kValues; ++v) held[k][v] = held[k + kStep][v];
    }
}

SPLAT_DEVICE bool kept(const Photometric& job, int64_t element) {
    return !job.mask || job.mask[element / kChannels] != 0;
}

// The rendering and the photograph at an element; where it is masked, the photograph twice.
SPLAT_DEVICE void pair_at(const Photometric& job, int64_t element, float& x, float& y) {
    y = static_cast<float>(job.target[element]) / 255.0f;
    x = kept(job, element) ? job.image[element] : y;
}

// Sums over the block's threads, in an order that never changes; right in thread 0.
SPLAT_DEVICE void block_sums(double (&values)[kSums]) {
    __shared__ double shared[kSums][kThreads];
    for (int s = 0; s < kSums; ++s) shared[s][threadIdx.x] = values[s];
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.x) < half)
            for (int s = 0; s < kSums; ++s) shared[s][threadIdx.x] += shared[s][threadIdx.x + half];
        __syncthreads();
    }
    for (int s = 0; s < kSums; ++s) values[s] = shared[s][0];
}

__global__ void __launch_bounds__(kThreads) photometric_compare(Photometric job) {
    const Band band(job.height, job.width);
    const int64_t plane = band.row_length * job.height;
    float l1 = 0.0f, dissimilarity = 0.0f;
    int counted = 0;
    sweep<2, 4>(
        band, job.height,
        [&](int64_t element, float(&values)[2]) { pair_at(job, element, values[0], values[1]); },
        [](const float(&values)[2], float(&quantities)[4]) {
            const float x = values[0], y = values[1];
            quantities[0] = x, quantities[1] = y, quantities[2] = fma(x, x, y * y), quantities[3] = x * y;
        },
        [&](int, int64_t element, const float(&values)[2], const float(&means)[4]) {
            const bool keep = kept(job, element);
            const SsimPoint<float> point = ssim_point(means[0], means[1], means[2], means[3]);
            if (job.derivatives) {
                job.derivatives[element] = keep ? point.d_mean : 0.0f;
                job.derivatives[plane + element] = keep ? point.d_square : 0.0f;
                job.derivatives[2 * plane + element] = keep ? point.d_product : 0.0f;
            }
            if (!keep) return;
            l1 += abs(values[0] - values[1]);
            dissimilarity += 1.0f - point.value;
            ++counted;
        });
    double sums[kSums] = {l1, dissimilarity, static_cast<double>(counted)};
    block_sums(sums);
    if (threadIdx.x == 0)
        for (int s = 0; s < kSums; ++s) job.sums[static_cast<int64_t>(kSums) * blockIdx.x + s] = sums[s];
}

// One block: the sums of all blocks, and the loss.
__global__ void __launch_bounds__(kThreads) photometric_finish(Photometric job, int64_t blocks) {
    double sums[kSums] = {};
    for (int64_t i = threadIdx.x; i < blocks; i += kThreads)
        for (int s = 0; s < kSums; ++s) sums[s] += job.sums[kSums * i + s];
    block_sums(sums);
    if (threadIdx.x != 0) return;
    const double inverse = sums[2] > 0.0 ? 1.0 / sums[2] : 0.0, w = job.ssim_weight;
    *job.loss = static_cast<float>(((1.0 - w) * sums[0] + w * sums[1]) * inverse);
    *job.inverse = static_cast<float>(inverse);
}

__global__ void __launch_bounds__(kThreads)
    photometric_differentiate(Photometric job, const float* factor, float* gradient) {
    const Band band(job.height, job.width);
    const int64_t plane = band.row_length * job.height;
    const float scale = *factor * *job.inverse;
    const float l1 = (1.0f - job.ssim_weight) * scale, ssim = job.ssim_weight * scale;
    sweep<3, 3>(
        band, job.height,
        [&](int64_t element, float(&values)[3]) {
            for (int d = 0; d < 3; ++d) values[d] = job.derivatives[d * plane + element];
        },
        [](const float(&values)[3], float(&quantities)[3]) {
            for (int d = 0; d < 3; ++d) quantities[d] = values[d];
        },
        [&](int, int64_t element, const float(&)[3], const float(&means)[3]) {
            float x, y;
            pair_at(job, element, x, y);
            const float slope = fma(y, means[2], fma(x + x, means[1], means[0]));
            const float sign = x > y ? l1 : x < y ? -l1 : 0.0f;
            gradient[element] = kept(job, element) ? fma(-ssim, slope, sign) : 0.0f;
        });
}

int64_t blocks_for(int height, int width) {
    return divide_up(static_cast<int64_t>(kChannels) * width, kOwn) * divide_up(height, kRows);
}

}  // namespace

int64_t photometric_sums(int height, int width) { return kSums * blocks_for(height, width); }

void photometric_value(const Photometric& job, Stream stream) {
    const int64_t blocks = blocks_for(job.height, job.width);
    launch("photometric_compare", photometric_compare, blocks, kThreads, stream, job);
    launch("photometric_finish", photometric_finish, 1, kThreads, stream, job, blocks);
}

void photometric_gradient(const Photometric& job, const float* factor, float* gradient, Stream stream) {
    launch("photometric_differentiate", photometric_differentiate, blocks_for(job.height, job.width), kThreads,
           stream, job, factor, gradient);
}

}  // namespace splat::gpu
