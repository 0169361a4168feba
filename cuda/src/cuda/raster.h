// One render and its derivative on a GPU.
#pragma once

#include <cstdint>
#include <functional>

#include "sort.h"
#include "stages.h"

namespace splat::gpu {

// Outputs of the forward pass; all but image and alpha may be null. Shapes as in splat.raster.RenderOutput.
// contribution holds zeros.
struct ForwardOutputs {
    float *image, *alpha, *depth, *median_depth;
    int32_t* ids;
    float* features;
    int32_t* radii;
    float* contribution;
};

// Gradients of the outputs; each may be null (zero).
struct OutputGradients {
    const float *image, *alpha, *depth, *median_depth, *features;
};

// The buffers of a render. The caller owns the memory: see Allocate.
enum Slot {
    kFrame, kCounters, kSplats, kSplatOf, kKeys, kOtherKeys, kIds, kOtherIds, kTiles, kCounts, kOffsets,
    kInstanceTiles, kOtherInstanceTiles, kInstanceIds, kOtherInstanceIds, kStarts,
    kTransmittance, kEnd, kMedian, kBucketTiles, kBucketValues, kRows, kPoseSums, kWorkspace,
    kSlots,
};

// Device memory of at least `bytes` for a slot, good until the slot is asked for again; for none it gives back what
// the slot had.
using Allocate = std::function<void*(int slot, size_t bytes)>;

// State of one render, from forward to backward; reused by the next. Not for two renders at a time, and always
// on the same stream.
class Raster {
public:
    explicit Raster(Allocate allocate) : allocate_(std::move(allocate)) {}

    // What `forward` draws, and what moves it: row `pose.view` of rows [views, 6].
    void set_view(const View& view, Stream stream);
    void refine_view(const float* rows, Stream stream);
    // What `fused_step` and `refine_view` go by.
    void set_rates(const FusedRates& fused, const PoseRates& pose, Stream stream);

    // background [3] and features [N, channels] may be null. width and height are those of the frame's view.
    // Without a guard it waits for the number of splats and instances, so that there is room for them. With one
    // it never waits: there is room for an eighth more than was needed as far as the host has heard; see Guard for
    // what becomes of the step if that is too little.
    // by_splats: blend_backward_splats follows, which needs a checkpoint every 32 instances, in place of
    // blend_backward; not with features.
    void forward(int width, int height, const SceneArrays& scene, const float* background, const float* features,
                 int channels, bool by_splats, const ForwardOutputs& out, Guard* guard, Stream stream);

    // Of the last forward call: image-space gradients of every splat, kept inside for what follows. `image` and
    // `depth` are the forward outputs, background and features as in forward. v_features [N, channels] holds zeros; means2d
    // and absolute [N, 2] are written whole; each may be null.
    void blend_backward(const OutputGradients& v, const float* background, const float* image, const float* depth,
                        const float* features, float* v_features, float* means2d, float* absolute, Stream stream);

    // After blend_backward, with the scene as it was in forward. The arrays are written whole; v_pose [12]
    // (rotation, translation) may be null.
    void project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, Stream stream);

    // The same with penalties and Adam, at the rates that were set, in place on `values`, the scene's arrays or
    // others, and on the row of the poses, if there are any.
    void fused_step(const SceneArrays& scene, float* const values[5], const Moments& moments, const PoseArrays& poses,
                    Stream stream);

    // Room for splats and for instances.
    int64_t splat_capacity() const { return splat_capacity_; }
    int64_t capacity() const { return capacity_; }

private:
    template <class T>
    T* memory(Slot slot, int64_t count);
    template <class T>
    T* kept(Slot slot) const {
        return static_cast<T*>(address_[slot]);
    }
    void release(Slot slot);
    double* pose_sums(Stream stream);
    void reserve(int64_t splats, int64_t instances);
    void project(const SceneArrays& scene, int32_t* radii, Stream stream);
    void sort_by_depth(int64_t count, Stream stream);
    void bin(int64_t splats, int64_t instances, Guard* guard, Stream stream);
    ProjectBackward backward_arguments(const SceneArrays& scene) const;

    Allocate allocate_;
    void* address_[kSlots]{};
    size_t size_[kSlots]{};

    Grid grid_{};
    int channels_ = 0;
    int64_t count_ = 0, splat_capacity_ = 0, capacity_ = 0;
    bool has_median_ = false;
    Checkpoints checkpoints_{};
    int64_t instances_ = 0;           // that the last render had room for
    const Guard* guard_ = nullptr;    // of the last render
    const uint32_t* ids_ = nullptr;   // [splat_capacity] by depth
    const uint32_t* list_ = nullptr;  // [capacity] by tile
};

// Memory that blend_backward_splats takes beyond blend_backward.
int64_t checkpoint_bytes(int64_t instances, int width, int height);

}  // namespace splat::gpu
