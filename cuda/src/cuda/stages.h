// The stages of the rasterizer on the GPU, on device pointers. raster.cu strings them together; every function
// enqueues and returns. Null pointers are outputs that are not wanted.
#pragma once

#include <cstdint>

#include "device.h"
#include "splat/blending.h"
#include "splat/projection.h"
#include "splat/scene.h"

namespace splat::gpu {

struct alignas(16) Float4 {
    float x, y, z, w;
};

// Key of a Gaussian that is not drawn: behind every depth (which is finite and positive).
inline constexpr uint32_t kNotDrawn = 0xffffffffu;

// What the device tells the host, whenever the host comes to listen: so it keeps the history.
struct Counters {
    uint64_t instances;  // of the last render, whether there is room for them or not
    uint64_t most;       // of any render
    uint32_t overflow;   // 1 if the last had no room: the picture is incomplete and the step is skipped
    uint32_t overflows;  // how often that has been so
};

struct Project {
    View view;
    SceneArrays scene;
    Grid grid;
    Splat* splats;    // [N]
    uint32_t* keys;   // [N] depth bits, or kNotDrawn
    uint32_t* ids;    // [N] 0, 1, 2, ...
    uint32_t* tiles;  // [N] how many it touches
    int32_t* radii;   // [N]
};
void project(const Project& a, Stream stream);

// counts[r] = tiles[ids[r]]
void gather_counts(const uint32_t* ids, const uint32_t* tiles, uint32_t* counts, int64_t n, Stream stream);

struct Emit {
    Grid grid;
    const Splat* splats;
    const uint32_t* ids;      // [N] Gaussians by depth
    const uint64_t* offsets;  // [N] where the instances of each rank end
    int64_t count;            // N
    int64_t capacity;
    uint32_t* tile_of;        // [capacity] tile of each instance; those beyond the last get the number of tiles
    uint32_t* id_of;          // [capacity]
    Counters* counters;
};
void emit(const Emit& a, Stream stream);

// starts[t] = first instance of tile t in the sorted list, starts[tiles] = their number.
void find_starts(const uint32_t* tile_of, int64_t capacity, int tiles, int64_t* starts, Stream stream);

struct BlendForward {
    Grid grid;
    const Splat* splats;
    const uint32_t* list;   // Gaussians of every tile, front to back
    const int64_t* starts;  // [tiles + 1] into list
    const float* background;  // [3]; null is black
    const float* features;  // [N, channels]
    int channels;
    float* image;           // [H, W, 3]
    float* alpha;           // [H, W]
    float* depth;           // [H, W]
    float* median_depth;    // [H, W]
    int32_t* ids;           // [H, W]
    float* feature_image;   // [H, W, channels]
    float* contribution;    // [N], added to
    // State for the backward pass, [H, W].
    float* transmittance;   // behind the last splat
    int32_t* end;           // position in the tile's list behind the last splat that counted
    int32_t* median;        // position in the tile's list of the median splat, or -1
};
void blend_forward(const BlendForward& a, Stream stream);

struct BlendBackward {
    Grid grid;
    const Splat* splats;
    const uint32_t* list;
    const int64_t* starts;
    const float* background;  // [3]; null is black
    const float* features;
    int channels;
    const float* transmittance;
    const int32_t* end;
    const int32_t* median;
    const float* v_image;  // gradients of the outputs; null is zero
    const float* v_alpha;
    const float* v_depth;
    const float* v_median_depth;
    const float* v_features;
    const float* depth;       // the forward output, where v_depth is given
    bool want_absgrad;
    float* rows;              // [N, kRow], added to; u, v and the centre still times kWhitenScale
    float* v_splat_features;  // [N, channels], added to
};
void blend_backward(const BlendBackward& a, Stream stream);

// From the rows: dLoss / d(centre) and its absolute twin, [N, 2] each.
void centre_gradients(const Splat* splats, const uint32_t* tiles, const float* rows, int64_t n, float* means2d,
                      float* absolute, Stream stream);

struct ProjectBackward {
    View view;
    SceneArrays scene;
    const Splat* splats;
    const uint32_t* tiles;     // [N] 0: not drawn, the gradients are zero
    const float* rows;         // [N, kRow]
    const Counters* counters;
    float* gradients[5];       // written whole; as the scene's arrays
    double* pose;              // [15] added to: rotation (row-major), translation, centre of projection
};
void project_backward(const ProjectBackward& a, Stream stream);
// v_pose [12] from the sums.
void finish_pose(const View& view, const double* pose, float* v_pose, Stream stream);
// With penalties and Adam, in place. Does nothing after an overflow.
void fused_step(const ProjectBackward& a, const FusedStep& step, Stream stream);

}  // namespace splat::gpu
