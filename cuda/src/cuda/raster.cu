#include "raster.h"

#include <bit>

namespace splat::gpu {

// Grows by half as much again as was asked for, so that a scene that grows does not allocate at every step.
template <class T>
T* Raster::memory(Slot slot, int64_t count) {
    const size_t bytes = static_cast<size_t>(count < 1 ? 1 : count) * sizeof(T);
    if (bytes > size_[slot]) {
        const size_t wanted = size_[slot] ? bytes + bytes / 2 : bytes;
        address_[slot] = allocate_(slot, wanted);
        size_[slot] = wanted;
    }
    return static_cast<T*>(address_[slot]);
}

// What the device has told of earlier renders.
void Raster::hear() {
    Counters counters;
    if (!mailbox_.receive(counters)) return;
    instances_ = counters.instances;
    overflows_ = counters.overflows;
    if (counters.most + counters.most / 4 > static_cast<uint64_t>(capacity_)) reserve(counters.most);
}

void Raster::reserve(uint64_t instances) {
    const int64_t wanted = static_cast<int64_t>(instances + instances / 2) + 1024;
    if (wanted > capacity_) capacity_ = wanted;
}

void Raster::sort_by_depth(int64_t count, Stream stream) {
    Pair<uint32_t> keys{kept<uint32_t>(kKeys), memory<uint32_t>(kOtherKeys, count)};
    Pair<uint32_t> ids{kept<uint32_t>(kIds), memory<uint32_t>(kOtherIds, count)};
    size_t bytes = 0;
    sort_pairs(nullptr, bytes, keys, ids, count, 32, stream);
    sort_pairs(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, keys, ids, count, 32, stream);
    ids_ = ids.current;
}

void Raster::bin(int64_t count, bool exact, Stream stream) {
    uint32_t* counts = memory<uint32_t>(kCounts, count);
    uint64_t* offsets = memory<uint64_t>(kOffsets, count);
    gather_counts(ids_, kept<uint32_t>(kTiles), counts, count, stream);
    size_t bytes = 0;
    if (count) {
        inclusive_sum(nullptr, bytes, counts, offsets, count, stream);
        inclusive_sum(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, counts, offsets, count, stream);
    }
    if (exact || capacity_ == 0) {
        uint64_t total = 0;
        if (count) {
            copy(&total, offsets + count - 1, sizeof(total), stream);
            synchronize(stream);
        }
        if (total > static_cast<uint64_t>(capacity_) || capacity_ == 0) reserve(total);
    }

    const int tiles = grid_.across * grid_.down;
    Pair<uint32_t> tile_of{memory<uint32_t>(kInstanceTiles, capacity_), memory<uint32_t>(kOtherInstanceTiles, capacity_)};
    Pair<uint32_t> id_of{memory<uint32_t>(kInstanceIds, capacity_), memory<uint32_t>(kOtherInstanceIds, capacity_)};
    const bool first = !address_[kCounters];
    Counters* counters = memory<Counters>(kCounters, 1);
    if (first) set_zero(counters, sizeof(Counters), stream);
    emit({grid_, kept<Splat>(kSplats), ids_, offsets, count, capacity_, tile_of.current, id_of.current, counters}, stream);
    mailbox_.send(counters, stream);

    const int bits = std::bit_width(static_cast<unsigned>(tiles));
    sort_pairs(nullptr, bytes, tile_of, id_of, capacity_, bits, stream);
    sort_pairs(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, tile_of, id_of, capacity_, bits, stream);
    list_ = id_of.current;
    find_starts(tile_of.current, capacity_, tiles, memory<int64_t>(kStarts, tiles + 1), stream);
}

void Raster::forward(const View& view, const SceneArrays& scene, const float* background, const float* features,
                     int channels, const ForwardOutputs& out, bool exact, Stream stream) {
    hear();
    view_ = view;
    grid_ = make_grid(view.width, view.height);
    count_ = scene.count;
    channels_ = channels;

    project({view_, scene, grid_, memory<Splat>(kSplats, count_), memory<uint32_t>(kKeys, count_),
             memory<uint32_t>(kIds, count_), memory<uint32_t>(kTiles, count_), out.radii},
            stream);
    sort_by_depth(count_, stream);
    bin(count_, exact, stream);

    const int64_t pixels = static_cast<int64_t>(view.width) * view.height;
    BlendForward a{};
    a.grid = grid_;
    a.splats = kept<Splat>(kSplats);
    a.list = list_;
    a.starts = kept<int64_t>(kStarts);
    a.background = background;
    a.features = features;
    a.channels = channels;
    a.image = out.image;
    a.alpha = out.alpha;
    a.depth = out.depth;
    a.median_depth = out.median_depth;
    a.ids = out.ids;
    a.feature_image = out.features;
    a.contribution = out.contribution;
    a.transmittance = memory<float>(kTransmittance, pixels);
    a.end = memory<int32_t>(kEnd, pixels);
    has_median_ = out.median_depth || out.ids;
    a.median = has_median_ ? memory<int32_t>(kMedian, pixels) : nullptr;
    blend_forward(a, stream);
}

void Raster::blend_backward(const OutputGradients& v, const float* background, const float* depth,
                            const float* features, float* v_features, float* means2d, float* absolute,
                            Stream stream) {
    float* rows = memory<float>(kRows, count_ * kRow);
    set_zero(rows, static_cast<size_t>(count_) * kRow * sizeof(float), stream);
    if (v.image || v.alpha || v.depth || v.median_depth || v.features) {
        BlendBackward a{};
        a.grid = grid_;
        a.splats = kept<Splat>(kSplats);
        a.list = list_;
        a.starts = kept<int64_t>(kStarts);
        a.background = background;
        a.features = features;
        a.channels = v.features ? channels_ : 0;
        a.transmittance = kept<float>(kTransmittance);
        a.end = kept<int32_t>(kEnd);
        a.median = has_median_ ? kept<int32_t>(kMedian) : nullptr;
        a.v_image = v.image;
        a.v_alpha = v.alpha;
        a.v_depth = v.depth;
        a.v_median_depth = v.median_depth;
        a.v_features = v.features;
        a.depth = depth;
        a.want_absgrad = absolute != nullptr;
        a.rows = rows;
        a.v_splat_features = v.features ? v_features : nullptr;
        gpu::blend_backward(a, stream);
    }
    if (means2d || absolute)
        centre_gradients(kept<Splat>(kSplats), kept<uint32_t>(kTiles), rows, count_, means2d, absolute, stream);
}

ProjectBackward Raster::backward_arguments(const SceneArrays& scene) const {
    ProjectBackward a{};
    a.view = view_;
    a.scene = scene;
    a.splats = kept<Splat>(kSplats);
    a.tiles = kept<uint32_t>(kTiles);
    a.rows = kept<float>(kRows);
    a.counters = kept<Counters>(kCounters);
    return a;
}

void Raster::project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, Stream stream) {
    constexpr int kPose = 15;
    ProjectBackward a = backward_arguments(scene);
    for (int k = 0; k < 5; ++k) a.gradients[k] = arrays[k];
    if (v_pose) {
        a.pose = memory<double>(kPoseSums, kPose);
        set_zero(a.pose, kPose * sizeof(double), stream);
    }
    gpu::project_backward(a, stream);
    if (v_pose) finish_pose(view_, a.pose, v_pose, stream);
}

void Raster::fused_step(const SceneArrays& scene, const FusedStep& step, Stream stream) {
    gpu::fused_step(backward_arguments(scene), step, stream);
}

}  // namespace splat::gpu
