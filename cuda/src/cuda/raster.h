// One render and its derivative on a GPU.
#pragma once

#include <cstdint>
#include <functional>

#include "sort.h"
#include "stages.h"

namespace splat::gpu {

// Outputs of the forward pass; all but image and alpha may be null. Shapes as in splat.raster.RenderOutput.
// contribution and features hold zeros.
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
    kSplats, kKeys, kOtherKeys, kIds, kOtherIds, kTiles, kCounts, kOffsets,
    kInstanceTiles, kOtherInstanceTiles, kInstanceIds, kOtherInstanceIds, kStarts,
    kTransmittance, kEnd, kMedian, kRows, kPoseSums, kCounters, kWorkspace,
    kSlots,
};

// Device memory of at least `bytes` for a slot, good until the slot is asked for again.
using Allocate = std::function<void*(int slot, size_t bytes)>;

// State of one render, from forward to backward; reused by the next. Not for two renders at a time, and always
// on the same stream.
class Raster {
public:
    explicit Raster(Allocate allocate) : allocate_(std::move(allocate)) {}

    // background [3] and features [N, channels] may be null.
    // exact: waits for the number of instances, so that there is room for them. Otherwise there is room for
    // at least a quarter more than earlier renders had; where that is too little, the picture lacks instances,
    // fused_step does nothing, and a forward call makes room as soon as the host has heard.
    void forward(const View& view, const SceneArrays& scene, const float* background, const float* features,
                 int channels, const ForwardOutputs& out, bool exact, Stream stream);

    // Of the last forward call: image-space gradients of every Gaussian, kept inside for what follows. `depth`
    // is the forward output, background and features as in forward. v_features [N, channels] holds zeros; means2d and absolute [N, 2] are written
    // whole; each may be null.
    void blend_backward(const OutputGradients& v, const float* background, const float* depth, const float* features,
                        float* v_features, float* means2d, float* absolute, Stream stream);

    // After blend_backward, with the scene as it was in forward. The arrays are written whole; v_pose [12]
    // (rotation, translation) may be null.
    void project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, Stream stream);

    // The same with penalties and Adam, in place.
    void fused_step(const SceneArrays& scene, const FusedStep& step, Stream stream);

    // Of the last render that the host has heard of.
    uint64_t instances() const { return instances_; }
    // Renders that lacked room, as far as the host has heard.
    int64_t overflows() const { return overflows_; }
    int64_t capacity() const { return capacity_; }

private:
    template <class T>
    T* memory(Slot slot, int64_t count);
    template <class T>
    T* kept(Slot slot) const {
        return static_cast<T*>(address_[slot]);
    }
    void hear();
    void reserve(uint64_t instances);
    void sort_by_depth(int64_t count, Stream stream);
    void bin(int64_t count, bool exact, Stream stream);
    ProjectBackward backward_arguments(const SceneArrays& scene) const;

    Allocate allocate_;
    void* address_[kSlots]{};
    size_t size_[kSlots]{};

    View view_{};
    Grid grid_{};
    int channels_ = 0;
    int64_t count_ = 0, capacity_ = 0, overflows_ = 0;
    uint64_t instances_ = 0;
    bool has_median_ = false;
    const uint32_t* ids_ = nullptr;   // [N] by depth
    const uint32_t* list_ = nullptr;  // [capacity] by tile
    Mailbox<Counters> mailbox_;
};

}  // namespace splat::gpu
