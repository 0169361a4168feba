// One render and its derivative on the CPU.
#pragma once

#include <cstdint>

#include <chrono>

#include "binning.h"
#include "buffer.h"
#include "raster_kernels.h"

namespace splat::cpu {

// Outputs of the forward pass; all but image and alpha may be null. Shapes as in splat.raster.RenderOutput.
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

// Milliseconds that the stages of the last calls took.
struct StageTimes {
    double project, bin, blend, blend_backward, reduce, project_backward, fused_step;
};

// Memory of one render, from forward to backward; reused by the next. Not for two renders at a time, but
// any number of these may be at work at once.
class Raster {
public:
    // `features` [N, channels] or null.
    void forward(const View& view, const SceneArrays& scene, const float* background, const float* features,
                 int channels, const ForwardOutputs& out, int threads);

    // Of the last forward call: image-space gradients of every visible Gaussian, kept inside for what
    // follows. `depth` is the forward output. v_features [N, channels], means2d and absolute [N, 2] may be
    // null; otherwise they hold zeros and are filled for what was visible.
    void blend_backward(const OutputGradients& v, const float* depth, const float* features, float* v_features,
                        float* means2d, float* absolute, int threads);

    // After blend_backward, with the scene as it was in forward. The arrays (null all five: not wanted) are
    // written whole; v_pose [12] (rotation, translation) may be null.
    void project_backward(const SceneArrays& scene, float* const arrays[5], float* v_pose, int threads);

    // The same with penalties and Adam, in place.
    void fused_step(const SceneArrays& scene, const FusedStep& step, int threads);

    uint64_t instances() const { return binning_.instances(); }
    int64_t visible() const { return binning_.visible(); }
    const StageTimes& times() const { return times_; }

private:
    void reduce(float* v_features, float* means2d, float* absolute, int threads);
    // Milliseconds since the last call.
    double lap();
    ProjectBackward backward_arguments(const SceneArrays& scene) const;

    StageTimes times_{};
    std::chrono::steady_clock::time_point lap_{};
    View view_{};
    Grid grid_{};
    float background_[3]{};
    int channels_ = 0;
    int64_t count_ = 0;
    Binning binning_;
    Buffer<Splat> splats_;
    Buffer<uint8_t> visible_;
    Buffer<uint64_t> keys_;
    Buffer<float> transmittance_, sums_, contribution_, instance_rows_, instance_features_, rows_;
    Buffer<int32_t> end_, median_;
    Buffer<double> pose_;
};

}  // namespace splat::cpu
