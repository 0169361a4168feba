#include "raster.h"

#include <cstring>
#include <utility>
#include <vector>

#include "thread_pool.h"

namespace splat::cpu {

double Raster::lap() {
    const auto before = std::exchange(lap_, std::chrono::steady_clock::now());
    return std::chrono::duration<double, std::milli>(lap_ - before).count();
}

void Raster::forward(const View& view, const SceneArrays& scene, const float* background, const float* features,
                     int channels, const ForwardOutputs& out, int threads) {
    const RasterKernels& kernels = raster_kernels();
    lap();
    view_ = view;
    count_ = scene.count;
    channels_ = channels;
    grid_ = make_grid(view.width, view.height);
    for (int c = 0; c < 3; ++c) background_[c] = background ? background[c] : 0.0f;

    // Project; every task lists its visible Gaussians at the start of its own range of keys.
    splats_.resize(count_);
    visible_.resize(count_);
    keys_.resize(count_);
    const int64_t tasks = (count_ + kRange - 1) / kRange;
    std::vector<int64_t> found(tasks);
    parallel_ranges(threads, count_, kRange, [&](int64_t begin, int64_t end) {
        found[begin / kRange] = kernels.project(view_, scene, begin, end, splats_.get(), visible_.get(),
                                                keys_.get() + begin, out.radii);
    });
    int64_t visible = 0;
    for (int64_t task = 0; task < tasks; ++task) {
        std::memmove(keys_.get() + visible, keys_.get() + task * kRange, found[task] * sizeof(uint64_t));
        visible += found[task];
    }
    times_.project = lap();
    binning_.run(grid_, splats_.get(), keys_, visible, threads);
    times_.bin = lap();

    const size_t pixels = static_cast<size_t>(binning_.tiles()) * kTilePixels;
    BlendForward a{};
    a.grid = grid_;
    a.splats = splats_.get();
    a.list = binning_.list();
    a.starts = binning_.starts();
    for (int c = 0; c < 3; ++c) a.background[c] = background_[c];
    a.features = features;
    a.channels = channels;
    a.want_median = out.median_depth || out.ids;
    a.image = out.image;
    a.alpha = out.alpha;
    a.depth = out.depth;
    a.median_depth = out.median_depth;
    a.ids = out.ids;
    a.feature_image = out.features;
    a.transmittance = transmittance_.resize(pixels);
    a.end = end_.resize(pixels);
    a.median = a.want_median ? median_.resize(pixels) : nullptr;
    a.sums = out.depth || channels ? sums_.resize(pixels * (1 + channels)) : nullptr;
    if (out.contribution) {
        a.contribution = contribution_.resize(instances());
        std::memset(a.contribution, 0, instances() * sizeof(float));
    }
    parallel_for(threads, binning_.tiles(), [&](int64_t tile) { kernels.blend_forward(a, tile); });
    times_.blend = lap();

    if (out.contribution || out.radii) {
        parallel_ranges(threads, visible, kRange, [&](int64_t begin, int64_t end) {
            for (int64_t rank = begin; rank < end; ++rank) {
                const uint64_t first = binning_.offsets()[rank], last = binning_.offsets()[rank + 1];
                const uint32_t id = binning_.gaussian(rank);
                if (out.radii && first == last) out.radii[id] = 0;
                if (!out.contribution) continue;
                float sum = 0;
                for (uint64_t i = first; i < last; ++i) sum += a.contribution[binning_.places()[i]];
                out.contribution[id] = sum;
            }
        });
    }
}

void Raster::blend_backward(const OutputGradients& v, const float* depth, const float* features, float* v_features,
                            float* means2d, float* absolute, int threads) {
    const RasterKernels& kernels = raster_kernels();
    const size_t pixels = static_cast<size_t>(binning_.tiles()) * kTilePixels;
    BlendBackward a{};
    a.grid = grid_;
    a.splats = splats_.get();
    a.list = binning_.list();
    a.starts = binning_.starts();
    for (int c = 0; c < 3; ++c) a.background[c] = background_[c];
    a.features = features;
    a.channels = v.features ? channels_ : 0;
    a.transmittance = transmittance_.get();
    a.end = end_.get();
    a.median = median_.get();
    a.v_image = v.image;
    a.v_alpha = v.alpha;
    a.v_depth = v.depth;
    a.v_median_depth = v.median_depth;
    a.v_features = v.features;
    a.depth = depth;
    a.want_absgrad = absolute != nullptr;
    a.rows = instance_rows_.resize(instances() * kRow);
    a.v_splat_features = v.features && v_features ? instance_features_.resize(instances() * channels_) : nullptr;
    a.scratch = v.depth || v.features ? sums_.resize(pixels * (1 + channels_)) : nullptr;
    lap();
    parallel_for(threads, binning_.tiles(), [&](int64_t tile) { kernels.blend_backward(a, tile); });
    times_.blend_backward = lap();
    reduce(a.v_splat_features ? v_features : nullptr, means2d, absolute, threads);
    times_.reduce = lap();
}

// Adds up each Gaussian's instances in the order of the tiles: the same bits for any number of threads.
void Raster::reduce(float* v_features, float* means2d, float* absolute, int threads) {
    rows_.resize(count_ * kRow);
    parallel_ranges(threads, binning_.visible(), kRange / 4, [&](int64_t begin, int64_t end) {
        for (int64_t rank = begin; rank < end; ++rank) {
            const uint64_t* place = binning_.places() + binning_.offsets()[rank];
            const uint64_t n = binning_.offsets()[rank + 1] - binning_.offsets()[rank];
            const size_t id = binning_.gaussian(rank);
            float sum[kRow] = {};
            for (uint64_t i = 0; i < n; ++i) {
                const float* row = instance_rows_.get() + place[i] * kRow;
                for (int k = 0; k < kRow; ++k) sum[k] += row[k];
            }
            std::memcpy(rows_.get() + id * kRow, sum, sizeof(sum));
            if (means2d) {
                const Splat& s = splats_[id];
                const float unscale = 1 / kWhitenScale;
                const ImageGradient<float> d{sum[kG], sum[kGu], sum[kGv], sum[kGuu], sum[kGuv], sum[kGvv], 0};
                centre_gradient(s.p * unscale, s.q * unscale, s.r * unscale, d, means2d[2 * id], means2d[2 * id + 1]);
            }
            if (absolute) {
                absolute[2 * id] = sum[kAbsX];
                absolute[2 * id + 1] = sum[kAbsY];
            }
            if (v_features)
                for (uint64_t i = 0; i < n; ++i)
                    for (int c = 0; c < channels_; ++c)
                        v_features[id * channels_ + c] += instance_features_[place[i] * channels_ + c];
        }
    });
}

ProjectBackward Raster::backward_arguments(const SceneArrays& scene) const {
    ProjectBackward a{};
    a.view = &view_;
    a.scene = scene;
    a.splats = splats_.get();
    a.visible = visible_.get();
    a.rows = rows_.get();
    return a;
}

void Raster::project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, int threads) {
    const RasterKernels& kernels = raster_kernels();
    ProjectBackward a = backward_arguments(scene);
    a.means = arrays[0], a.quats = arrays[1], a.log_scales = arrays[2], a.logit_opacities = arrays[3], a.sh = arrays[4];
    constexpr int kPose = 15;
    const int64_t tasks = (count_ + kRange - 1) / kRange;
    a.pose = v_pose ? pose_.resize(tasks * kPose) : nullptr;
    lap();
    parallel_ranges(threads, count_, kRange,
                    [&](int64_t begin, int64_t end) { kernels.project_backward(a, begin, end); });
    times_.project_backward = lap();
    if (!v_pose) return;
    double total[kPose] = {};
    for (int64_t task = 0; task < tasks; ++task)
        for (int i = 0; i < kPose; ++i) total[i] += a.pose[task * kPose + i];
    // The centre of projection is -R^T t.
    const double* v_position = total + 12;
    for (int k = 0; k < 3; ++k)
        for (int i = 0; i < 3; ++i) {
            total[3 * k + i] -= view_.translation[k] * v_position[i];
            total[9 + k] -= view_.rotation[3 * k + i] * v_position[i];
        }
    for (int i = 0; i < 12; ++i) v_pose[i] = static_cast<float>(total[i]);
}

void Raster::fused_step(const SceneArrays& scene, const FusedStep& step, int threads) {
    const RasterKernels& kernels = raster_kernels();
    const ProjectBackward a = backward_arguments(scene);
    lap();
    parallel_ranges(threads, count_, kRange,
                    [&](int64_t begin, int64_t end) { kernels.fused_step(a, step, begin, end); });
    times_.fused_step = lap();
}

}  // namespace splat::cpu
