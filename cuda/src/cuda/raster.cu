#include "raster.h"

#include <bit>

namespace splat::gpu {

template <class T>
T* Raster::memory(Slot slot, int64_t count) {
    const size_t bytes = static_cast<size_t>(count < 1 ? 1 : count) * sizeof(T);
    if (bytes > size_[slot]) {
        address_[slot] = allocate_(slot, bytes);
        size_[slot] = bytes;
    }
    return static_cast<T*>(address_[slot]);
}

// Makes room for a quarter more, so that a scene that grows does not allocate at every step.
void Raster::reserve(int64_t splats, int64_t instances) {
    if (splats > splat_capacity_) {
        const int64_t ample = splats + splats / 4 + 16;
        splat_capacity_ = ample < count_ ? ample : splats > count_ ? splats : count_;
    }
    if (instances > capacity_) capacity_ = instances + instances / 4 + 16;
}

void Raster::release(Slot slot) {
    if (!size_[slot]) return;
    allocate_(slot, 0);
    address_[slot] = nullptr, size_[slot] = 0;
}

void Raster::set_view(const View& view, Stream stream) { gpu::set_view(view, memory<Frame>(kFrame, 1), stream); }

void Raster::set_rates(const FusedRates& fused, const PoseRates& pose, Stream stream) {
    gpu::set_rates(fused, pose, memory<Frame>(kFrame, 1), stream);
}

void Raster::refine_view(const float* rows, Stream stream) { gpu::refine_view(rows, kept<Frame>(kFrame), stream); }

void Raster::project(const SceneArrays& scene, int32_t* radii, Stream stream) {
    const int64_t blocks = project_blocks(scene.count);
    // One fill: the counters, and behind them the status of the blocks.
    static_assert(sizeof(Counters) % sizeof(unsigned long long) == 0);
    const size_t bytes = sizeof(Counters) + static_cast<size_t>(blocks) * sizeof(unsigned long long);
    char* counters = memory<char>(kCounters, static_cast<int64_t>(bytes));
    set_bytes(counters, 0, bytes, stream);
    const int64_t room = splat_capacity_;
    uint32_t* keys = memory<uint32_t>(kKeys, room);
    set_bytes(keys, kEmptyByte, static_cast<size_t>(room) * sizeof(uint32_t), stream);
    gpu::project({kept<Frame>(kFrame), scene, grid_, reinterpret_cast<Counters*>(counters),
                  reinterpret_cast<unsigned long long*>(counters + sizeof(Counters)), room,
                  memory<Splat>(kSplats, room), keys, memory<uint32_t>(kIds, room), memory<uint32_t>(kTiles, room),
                  memory<uint32_t>(kSplatOf, scene.count), radii},
                 stream);
}

void Raster::sort_by_depth(int64_t count, Stream stream) {
    Pair<uint32_t> keys{kept<uint32_t>(kKeys), memory<uint32_t>(kOtherKeys, splat_capacity_)};
    Pair<uint32_t> ids{kept<uint32_t>(kIds), memory<uint32_t>(kOtherIds, splat_capacity_)};
    size_t bytes = 0;
    sort_pairs(nullptr, bytes, keys, ids, count, 32, stream);
    sort_pairs(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, keys, ids, count, 32, stream);
    ids_ = ids.current;
}

// splats, instances: how many may be there; not above the capacities.
void Raster::bin(int64_t splats, int64_t instances, Guard* guard, Stream stream) {
    const Counters* counters = kept<Counters>(kCounters);
    uint32_t* counts = memory<uint32_t>(kCounts, splat_capacity_);
    uint64_t* offsets = memory<uint64_t>(kOffsets, splat_capacity_);
    gather_counts(ids_, kept<uint32_t>(kTiles), counters, counts, splats, stream);
    size_t bytes = 0;
    inclusive_sum(nullptr, bytes, counts, offsets, splats, stream);
    inclusive_sum(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, counts, offsets, splats, stream);

    const int tiles = grid_.across * grid_.down;
    Pair<uint32_t> tile_of{memory<uint32_t>(kInstanceTiles, capacity_), memory<uint32_t>(kOtherInstanceTiles, capacity_)};
    Pair<uint32_t> id_of{memory<uint32_t>(kInstanceIds, capacity_), memory<uint32_t>(kOtherInstanceIds, capacity_)};
    set_bytes(tile_of.current, kEmptyByte, static_cast<size_t>(instances) * sizeof(uint32_t), stream);
    emit({grid_, kept<Splat>(kSplats), ids_, offsets, splats, instances, tile_of.current, id_of.current, counters,
          guard ? guard->record() : nullptr},
         stream);
    if (guard && !guard->capturing) guard->send(stream);

    const int bits = std::bit_width(static_cast<unsigned>(tiles));
    sort_pairs(nullptr, bytes, tile_of, id_of, instances, bits, stream);
    sort_pairs(memory<char>(kWorkspace, static_cast<int64_t>(bytes)), bytes, tile_of, id_of, instances, bits, stream);
    list_ = id_of.current;
    find_starts(tile_of.current, instances, tiles, memory<int64_t>(kStarts, tiles + 1), stream);
}

void Raster::forward(int width, int height, const SceneArrays& scene, const float* background, const float* features,
                     int channels, bool by_splats, const ForwardOutputs& out, Guard* guard, Stream stream) {
    grid_ = make_grid(width, height);
    count_ = scene.count;
    channels_ = channels;
    guard_ = guard;
    memory<Frame>(kFrame, 1);  // a graph is given its view when it is replayed
    if (guard) {
        if (!guard->capturing) guard->listen();
        // An eighth more than was needed so far.
        const int64_t visible = guard->heard().visible, most = static_cast<int64_t>(guard->heard().instances);
        const int64_t wanted = visible + visible / 8;
        reserve(wanted < count_ ? wanted : visible, most + most / 8);
    }
    // The first render knows nothing.
    reserve(1, 1);
    project(scene, out.radii, stream);
    int64_t splats = splat_capacity_, instances = capacity_;
    if (!guard) {
        Counters counters;
        copy_to_host(&counters, kept<Counters>(kCounters), sizeof(Counters), stream);
        const bool again = counters.visible > splat_capacity_;
        splats = counters.visible < 1 ? 1 : counters.visible;
        instances = counters.instances < 1 ? 1 : static_cast<int64_t>(counters.instances);
        reserve(splats, instances);
        if (again) project(scene, out.radii, stream);
    }
    sort_by_depth(splats, stream);
    bin(splats, instances, guard, stream);

    const int64_t pixels = static_cast<int64_t>(width) * height;
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
    checkpoints_ = {};
    if (by_splats && !channels) {
        const int64_t buckets = bucket_count(instances, grid_.across * grid_.down);
        checkpoints_ = {memory<uint32_t>(kBucketTiles, buckets),
                        memory<float>(kBucketValues, buckets * kCheckpointValues * kTile * kTile)};
        set_bytes(checkpoints_.tile_of, kEmptyByte, static_cast<size_t>(buckets) * sizeof(uint32_t), stream);
    } else {
        release(kBucketTiles);
        release(kBucketValues);
    }
    a.checkpoints = checkpoints_;
    instances_ = instances;
    blend_forward(a, stream);
}

void Raster::blend_backward(const OutputGradients& v, const float* background, const float* image,
                            const float* depth, const float* features, float* v_features, float* means2d,
                            float* absolute, Stream stream) {
    float* rows = memory<float>(kRows, splat_capacity_ * kRow);
    set_bytes(rows, 0, static_cast<size_t>(splat_capacity_) * kRow * sizeof(float), stream);
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
        a.checkpoints = checkpoints_;
        a.image = image;
        if (checkpoints_.values)
            blend_backward_splats(a, instances_, stream);
        else
            gpu::blend_backward(a, stream);
    }
    if (means2d || absolute)
        centre_gradients(kept<Splat>(kSplats), kept<uint32_t>(kSplatOf), rows, count_, means2d, absolute, stream);
}

ProjectBackward Raster::backward_arguments(const SceneArrays& scene) const {
    ProjectBackward a{};
    a.frame = kept<Frame>(kFrame);
    a.scene = scene;
    a.splats = kept<Splat>(kSplats);
    a.splat_of = kept<uint32_t>(kSplatOf);
    a.rows = kept<float>(kRows);
    return a;
}

double* Raster::pose_sums(Stream stream) {
    constexpr int kPose = 15;
    double* sums = memory<double>(kPoseSums, kPose);
    set_bytes(sums, 0, kPose * sizeof(double), stream);
    return sums;
}

void Raster::project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, Stream stream) {
    ProjectBackward a = backward_arguments(scene);
    for (int k = 0; k < 5; ++k) a.gradients[k] = arrays[k];
    if (v_pose) a.pose = pose_sums(stream);
    gpu::project_backward(a, stream);
    if (v_pose) finish_pose(a.frame, a.pose, v_pose, stream);
}

void Raster::fused_step(const SceneArrays& scene, float* const values[5], const Moments& moments,
                        const PoseArrays& poses, Stream stream) {
    ProjectBackward a = backward_arguments(scene);
    if (poses.rows) a.pose = pose_sums(stream);
    const Record* record = guard_ ? guard_->record() : nullptr;
    gpu::fused_step(a, values, moments, record, stream);
    if (poses.rows) step_pose(a.frame, a.pose, poses, record, stream);
}

int64_t checkpoint_bytes(int64_t instances, int width, int height) {
    const Grid grid = make_grid(width, height);
    const int64_t each = sizeof(uint32_t) + kCheckpointValues * kTile * kTile * sizeof(float);
    return bucket_count(instances, static_cast<int64_t>(grid.across) * grid.down) * each;
}

}  // namespace splat::gpu
