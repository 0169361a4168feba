#include "quantize.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "thread_pool.h"

namespace splat::cpu {
namespace {

constexpr int64_t kPointsPerTask = 240;
constexpr int64_t kPointsPerSum = 4096;
constexpr int64_t kLabelsPerTask = 64;

}  // namespace

void nearest(const float* points, int64_t count, int dims, const float* codewords, const float* penalties,
             int64_t size, int32_t* labels, int threads) {
    const int64_t blocks = (size + kCodewordBlock - 1) / kCodewordBlock;
    std::vector<float> packed(static_cast<size_t>(blocks) * kCodewordBlock * dims, 0.0f);
    // Places beyond the last codeword are never the least.
    std::vector<float> bias(static_cast<size_t>(blocks) * kCodewordBlock, std::numeric_limits<float>::infinity());
    parallel_ranges(threads, blocks, 16, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin * kCodewordBlock; k < std::min(size, end * kCodewordBlock); ++k) {
            const float* codeword = codewords + k * dims;
            float* to = packed.data() + (k / kCodewordBlock) * dims * kCodewordBlock + k % kCodewordBlock;
            double squares = penalties ? penalties[k] : 0.0;
            for (int d = 0; d < dims; ++d) {
                to[d * kCodewordBlock] = codeword[d];
                squares += static_cast<double>(codeword[d]) * codeword[d];
            }
            bias[k] = static_cast<float>(0.5 * squares);
        }
    });
    const auto& kernels = quantize_kernels();
    parallel_ranges(threads, count, kPointsPerTask, [&](int64_t begin, int64_t end) {
        float room[kScratchPerPoint * kPointsPerTask];
        kernels.nearest(points + begin * dims, end - begin, dims, packed.data(), bias.data(), blocks, room,
                        labels + begin);
    });
}

void accumulate(const float* points, const float* weights, const int32_t* labels, int64_t count, int dims,
                int64_t size, double* sums, double* mass, int threads) {
    // Points in the order of their labels, so that each sum is one thread's, in one order.
    const auto labelled = [&](int64_t i) { return labels[i] >= 0 && labels[i] < size; };
    std::vector<int64_t> ends(size + 1, 0), order(count);
    for (int64_t i = 0; i < count; ++i)
        if (labelled(i)) ++ends[labels[i] + 1];
    for (int64_t k = 0; k < size; ++k) ends[k + 1] += ends[k];
    std::vector<int64_t> next(ends.begin(), ends.end() - 1);
    for (int64_t i = 0; i < count; ++i)
        if (labelled(i)) order[next[labels[i]]++] = i;
    parallel_ranges(threads, size, kLabelsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
            double* sum = sums + k * dims;
            std::fill(sum, sum + dims, 0.0);
            mass[k] = 0;
            for (int64_t j = ends[k]; j < ends[k + 1]; ++j) {
                const float* point = points + order[j] * dims;
                const double weight = weights ? weights[order[j]] : 1.0;
                for (int d = 0; d < dims; ++d) sum[d] += weight * point[d];
                mass[k] += weight;
            }
        }
    });
}

int64_t seed(const float* points, const float* weights, int64_t count, int dims, const double* uniforms, int64_t size,
             int64_t* chosen, int threads) {
    // Sums over fixed runs of points: the same bits whatever the number of threads.
    const int64_t runs = (count + kPointsPerSum - 1) / kPointsPerSum;
    std::vector<float> distances(count, std::numeric_limits<float>::max());
    std::vector<double> sums(runs, 0.0);
    const auto& kernels = quantize_kernels();
    int64_t drawn = 0;
    for (; drawn < size; ++drawn) {
        // The first is drawn by weight alone.
        if (drawn == 0)
            for (int64_t i = 0; i < count; ++i) sums[i / kPointsPerSum] += weights ? weights[i] : 1.0;
        double total = 0;
        for (const double sum : sums) total += sum;
        if (!(total > 0)) break;
        double left = uniforms[drawn] * total;
        int64_t run = 0;
        for (; run + 1 < runs && left >= sums[run]; ++run) left -= sums[run];
        int64_t pick = -1;
        const int64_t end = std::min(count, (run + 1) * kPointsPerSum);
        for (int64_t i = run * kPointsPerSum; i < end; ++i) {
            const double share = drawn == 0 ? (weights ? weights[i] : 1.0) : distances[i];
            if (!(share > 0)) continue;
            pick = i;
            if (left < share) break;
            left -= share;
        }
        if (pick < 0) break;
        chosen[drawn] = pick;
        const float* codeword = points + pick * dims;
        parallel_ranges(threads, count, kPointsPerSum, [&](int64_t begin, int64_t stop) {
            sums[begin / kPointsPerSum] = kernels.approach(points + begin * dims, weights ? weights + begin : nullptr,
                                                           stop - begin, dims, codeword, distances.data() + begin);
        });
    }
    return drawn;
}

namespace {

// Cost of one run and the recurrence over numbers of runs. The best last cut moves right with the end of the
// range (the cost is concave Monge), so halving the range of ends halves the range of cuts.
class Partition {
public:
    Partition(const double* values, const double* weights, int64_t count)
        : mass_(count + 1, 0.0), first_(count + 1, 0.0), second_(count + 1, 0.0) {
        // Moments about the middle value: sums of squares of large numbers would cancel.
        const double origin = values[count / 2];
        for (int64_t i = 0; i < count; ++i) {
            const double x = values[i] - origin;
            mass_[i + 1] = mass_[i] + weights[i];
            first_[i + 1] = first_[i] + weights[i] * x;
            second_[i + 1] = second_[i] + weights[i] * x * x;
        }
    }

    // Squared error of values [begin, end) about their mean.
    double cost(int64_t begin, int64_t end) const {
        const double mass = mass_[end] - mass_[begin], first = first_[end] - first_[begin];
        return std::max(0.0, second_[end] - second_[begin] - first * first / mass);
    }

    // next[e] = min over cuts c of previous[c] + cost(c, e), for ends e in [low, high], cuts in [left, right].
    void extend(const std::vector<double>& previous, std::vector<double>& next, int32_t* cuts, int64_t low,
                int64_t high, int64_t left, int64_t right) const {
        if (low > high) return;
        const int64_t end = (low + high) / 2;
        double best = std::numeric_limits<double>::infinity();
        int64_t cut = left;
        for (int64_t c = left; c <= std::min(right, end - 1); ++c) {
            const double candidate = previous[c] + cost(c, end);
            if (candidate < best) {
                best = candidate;
                cut = c;
            }
        }
        next[end] = best;
        cuts[end] = static_cast<int32_t>(cut);
        extend(previous, next, cuts, low, end - 1, left, cut);
        extend(previous, next, cuts, end + 1, high, cut, right);
    }

private:
    std::vector<double> mass_, first_, second_;
};

}  // namespace

void partition(const double* values, const double* weights, int64_t count, int size, int64_t* ends) {
    const Partition problem(values, weights, count);
    std::vector<double> previous(count + 1, std::numeric_limits<double>::infinity()), next(previous);
    for (int64_t end = 1; end <= count; ++end) previous[end] = problem.cost(0, end);
    std::vector<int32_t> cuts(static_cast<size_t>(size) * (count + 1), 0);
    for (int run = 1; run < size; ++run) {
        problem.extend(previous, next, cuts.data() + static_cast<size_t>(run) * (count + 1), run + 1, count, run,
                       count - 1);
        std::swap(previous, next);
    }
    int64_t end = count;
    for (int run = size - 1; run >= 0; --run) {
        ends[run] = end;
        end = cuts[static_cast<size_t>(run) * (count + 1) + end];
    }
}

}  // namespace splat::cpu
