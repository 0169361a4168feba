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

// Codewords as the kernel wants them, about their mean: scores of nearby codewords far from the origin would cancel.
class Packed {
public:
    explicit Packed(int dims) : dims_(dims), sums_(dims, 0.0), origin_(dims) {}

    // Codewords in runs of rows; `fill` appends them one by one.
    template <class EachRow>
    void fill(int64_t size, EachRow&& each_row, const float* codewords, const float* penalties) {
        blocks_ = (size + kCodewordBlock - 1) / kCodewordBlock;
        packed_.assign(static_cast<size_t>(blocks_) * kCodewordBlock * dims_, 0.0f);
        // Places beyond the last codeword are never the least.
        bias_.assign(static_cast<size_t>(blocks_) * kCodewordBlock, std::numeric_limits<float>::infinity());
        std::fill(sums_.begin(), sums_.end(), 0.0);
        each_row([&](int64_t, int64_t row) {
            for (int d = 0; d < dims_; ++d) sums_[d] += codewords[row * dims_ + d];
        });
        for (int d = 0; d < dims_; ++d) origin_[d] = static_cast<float>(sums_[d] / static_cast<double>(size));
        each_row([&](int64_t k, int64_t row) {
            float* to = packed_.data() + (k / kCodewordBlock) * dims_ * kCodewordBlock + k % kCodewordBlock;
            double squares = penalties ? penalties[row] : 0.0;
            for (int d = 0; d < dims_; ++d) {
                const float component = codewords[row * dims_ + d] - origin_[d];
                to[d * kCodewordBlock] = component;
                squares += static_cast<double>(component) * component;
            }
            bias_[k] = static_cast<float>(0.5 * squares);
        });
    }

    // Labels of at most kPointsPerTask points.
    void label(const float* points, int64_t count, std::vector<float>& room, int32_t* labels) const {
        room.resize(static_cast<size_t>(count) * (dims_ + kScratchPerPoint));
        float* centred = room.data() + count * kScratchPerPoint;
        for (int64_t i = 0; i < count; ++i)
            for (int d = 0; d < dims_; ++d) centred[i * dims_ + d] = points[i * dims_ + d] - origin_[d];
        quantize_kernels().nearest(centred, count, dims_, packed_.data(), bias_.data(), blocks_, room.data(), labels);
    }

private:
    int dims_;
    int64_t blocks_ = 0;
    std::vector<double> sums_;
    std::vector<float> origin_, packed_, bias_;
};

}  // namespace

void nearest(const float* points, int64_t count, int dims, const float* codewords, const float* penalties,
             int64_t size, int32_t* labels, int threads) {
    Packed packed(dims);
    const auto rows = [&](auto&& take) {
        for (int64_t k = 0; k < size; ++k) take(k, k);
    };
    packed.fill(size, rows, codewords, penalties);
    parallel_ranges(threads, count, kPointsPerTask, [&](int64_t begin, int64_t end) {
        std::vector<float> room;
        packed.label(points + begin * dims, end - begin, room, labels + begin);
    });
}

void nearest_in_cells(const float* points, int dims, const float* codewords, const float* penalties, const Cells& cells,
                      const int64_t* near, int64_t reach, int32_t* labels, int threads) {
    parallel_for(threads, cells.count, [&](int64_t cell) {
        const auto rows = [&](auto&& take) {
            int64_t k = 0;
            for (const int64_t* c = near + cell * reach; c < near + (cell + 1) * reach; ++c)
                for (int64_t row = cells.codewords[*c]; row < cells.codewords[*c + 1]; ++row) take(k++, row);
        };
        std::vector<int32_t> names;
        rows([&](int64_t, int64_t row) { names.push_back(static_cast<int32_t>(row)); });
        if (names.empty()) names.push_back(0);
        Packed packed(dims);
        packed.fill(static_cast<int64_t>(names.size()), rows, codewords, penalties);
        std::vector<float> room;
        for (int64_t begin = cells.points[cell]; begin < cells.points[cell + 1]; begin += kPointsPerTask) {
            const int64_t count = std::min(kPointsPerTask, cells.points[cell + 1] - begin);
            packed.label(points + begin * dims, count, room, labels + begin);
            for (int64_t i = begin; i < begin + count; ++i) labels[i] = names[labels[i]];
        }
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

namespace {

// k-means++ over points in fixed runs, so that sums have the same bits whatever the number of threads;
// `each_run(runs, body)` calls body(run) for all of them.
template <class EachRun>
int64_t draw(const float* points, const float* weights, int64_t count, int dims, const double* uniforms, int64_t size,
             int64_t* chosen, EachRun&& each_run) {
    const int64_t runs = (count + kPointsPerSum - 1) / kPointsPerSum;
    std::vector<float> distances(count, std::numeric_limits<float>::max());
    std::vector<double> sums(runs, 0.0);
    const auto& kernels = quantize_kernels();
    // The first is drawn by weight alone.
    for (int64_t i = 0; i < count; ++i) sums[i / kPointsPerSum] += weights ? weights[i] : 1.0;
    for (int64_t drawn = 0; drawn < size; ++drawn) {
        double total = 0;
        for (const double sum : sums) total += sum;
        if (!(total > 0)) return drawn;
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
        if (pick < 0) return drawn;
        chosen[drawn] = pick;
        each_run(runs, [&](int64_t r) {
            const int64_t begin = r * kPointsPerSum;
            sums[r] = kernels.approach(points + begin * dims, weights ? weights + begin : nullptr,
                                       std::min(kPointsPerSum, count - begin), dims, points + pick * dims,
                                       distances.data() + begin);
        });
    }
    return size;
}

}  // namespace

int64_t seed(const float* points, const float* weights, int64_t count, int dims, const double* uniforms, int64_t size,
             int64_t* chosen, int threads) {
    return draw(points, weights, count, dims, uniforms, size, chosen,
                [&](int64_t runs, auto&& body) { parallel_for(threads, runs, body); });
}

void train_cells(const float* points, const float* weights, int dims, const Cells& cells, const double* uniforms,
                 int iterations, float* codewords, int64_t* drawn, int threads) {
    parallel_for(threads, cells.count, [&](int64_t cell) {
        const int64_t first = cells.points[cell], count = cells.points[cell + 1] - first;
        const int64_t word = cells.codewords[cell], size = cells.codewords[cell + 1] - word;
        const float* x = points + first * dims;
        const float* w = weights ? weights + first : nullptr;
        float* to = codewords + word * dims;
        std::vector<int64_t> chosen(size);
        const int64_t found = draw(x, w, count, dims, uniforms + word, size, chosen.data(),
                                   [](int64_t runs, auto&& body) {
                                       for (int64_t r = 0; r < runs; ++r) body(r);
                                   });
        drawn[cell] = found;
        for (int64_t k = 0; k < found; ++k) std::copy_n(x + chosen[k] * dims, dims, to + k * dims);

        Packed packed(dims);
        const auto rows = [&](auto&& take) {
            for (int64_t k = 0; k < found; ++k) take(k, k);
        };
        std::vector<float> room;
        std::vector<int32_t> labels(count);
        std::vector<double> sums(found * dims), mass(found);
        for (int iteration = 0; iteration < iterations && found > 0; ++iteration) {
            packed.fill(found, rows, to, nullptr);
            for (int64_t begin = 0; begin < count; begin += kPointsPerTask)
                packed.label(x + begin * dims, std::min(kPointsPerTask, count - begin), room, labels.data() + begin);
            std::fill(sums.begin(), sums.end(), 0.0);
            std::fill(mass.begin(), mass.end(), 0.0);
            for (int64_t i = 0; i < count; ++i) {
                const double weight = w ? w[i] : 1.0;
                double* sum = sums.data() + labels[i] * dims;
                for (int d = 0; d < dims; ++d) sum[d] += weight * x[i * dims + d];
                mass[labels[i]] += weight;
            }
            for (int64_t k = 0; k < found; ++k)
                for (int d = 0; d < dims && mass[k] > 0; ++d)
                    to[k * dims + d] = static_cast<float>(sums[k * dims + d] / mass[k]);
        }
    });
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
