// The stages of the rasterizer on the GPU, on device pointers. raster.cu strings them together; every function
// enqueues and returns. Null pointers are outputs that are not wanted.
//
// A splat is a Gaussian that is drawn. Splats are numbered in the order of their Gaussians, and every array over
// them is as long as there is room (`capacity`): how many there are, only the device knows.
#pragma once

#include <cstdint>

#include "device.h"
#include "guard.h"
#include "splat/blending.h"
#include "splat/moments.h"
#include "splat/pose.h"
#include "splat/projection.h"
#include "splat/scene.h"

namespace splat::gpu {

struct alignas(16) Float4 {
    float x, y, z, w;
};
struct alignas(8) Half4 {
    uint16_t at[4];
};

// Key of a place that no splat takes: behind every depth (which is finite and positive).
inline constexpr int kEmptyByte = 0xff;
inline constexpr uint32_t kNone = 0xffffffffu;

// What changes from one step to the next, in device memory: launches repeat to the bit, as a graph's do.
struct Frame {
    View base;  // as the host knows it
    View view;  // what is rendered: the same, or moved by what is fitted to it
    FusedRates fused;
    PoseRates pose;
};
void set_view(const View& view, Frame* to, Stream stream);
void set_rates(const FusedRates& fused, const PoseRates& pose, Frame* to, Stream stream);

// Small rigid motions of cameras (splat/pose.h) and their moments, [views, 6] each; null for none.
struct PoseArrays {
    float *rows, *first, *second;
};
// Moves the view by the row that is its own.
void refine_view(const float* rows, Frame* frame, Stream stream);
// One step of Adam on that row from the sums of `project_backward`, unless the guard refuses.
void step_pose(const Frame* frame, const double* sums, const PoseArrays& poses, const Record* record, Stream stream);

// Of one render; zero before.
struct Counters {
    unsigned long long instances;  // (splat, tile) pairs, whether there is room for them or not
    unsigned int visible;          // splats, likewise
    unsigned int ticket;           // blocks that have begun
};

struct Project {
    const Frame* frame;
    SceneArrays scene;
    Grid grid;
    Counters* counters;
    unsigned long long* status;  // [project_blocks(N)], zero before
    int64_t capacity;            // of splats
    Splat* splats;               // [capacity]
    uint32_t* keys;              // [capacity] depth bits; kNone before
    uint32_t* ids;               // [capacity] 0, 1, 2, ...
    uint32_t* tiles;             // [capacity] how many it touches
    uint32_t* splat_of;          // [N] of each Gaussian, or kNone
    int32_t* radii;              // [N]
};
int64_t project_blocks(int64_t count);
void project(const Project& a, Stream stream);

// counts[r] = tiles[ids[r]] for every splat, 0 beyond
void gather_counts(const uint32_t* ids, const uint32_t* tiles, const Counters* counters, uint32_t* counts,
                   int64_t capacity, Stream stream);

struct Emit {
    Grid grid;
    const Splat* splats;
    const uint32_t* ids;      // [splat_capacity] splats by depth
    const uint64_t* offsets;  // [splat_capacity] where the instances of each rank end
    int64_t splat_capacity, capacity;
    uint32_t* tile_of;        // [capacity] tile of each instance; kNone before
    uint32_t* id_of;          // [capacity]
    const Counters* counters;
    Record* record;           // of the guard; may be null
};
void emit(const Emit& a, Stream stream);

// starts[t] = first instance of tile t in the sorted list, starts[tiles] = their number.
void find_starts(const uint32_t* tile_of, int64_t capacity, int tiles, int64_t* starts, Stream stream);

// What the forward pass leaves for blend_backward_splats at every 32nd place of a tile's list, a bucket.
inline constexpr int kCheckpointValues = 5;  // transmittance; sums of the colours and of the depth
struct Checkpoints {
    uint32_t* tile_of;  // [bucket_count] kNone before
    float* values;      // [bucket_count, kCheckpointValues, 256]; null where none are wanted
};
// Of a tile whose instances begin at `begin`. Some numbers belong to no bucket, as all are taken without a scan.
SPLAT_HD int64_t first_bucket(int64_t begin, int64_t tile) { return begin / kWarp + tile; }
inline int64_t bucket_count(int64_t capacity, int64_t tiles) { return capacity / kWarp + tiles + 1; }

struct BlendForward {
    Grid grid;
    const Splat* splats;
    const uint32_t* list;   // splats of every tile, front to back
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
    Checkpoints checkpoints;
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
    Checkpoints checkpoints;
    const float* image;    // the forward output, where there are checkpoints
    const float* v_image;  // gradients of the outputs; null is zero
    const float* v_alpha;
    const float* v_depth;
    const float* v_median_depth;
    const float* v_features;
    const float* depth;       // the forward output, where v_depth is given
    bool want_absgrad;
    float* rows;              // [capacity, kRow], added to; u, v and the centre still times kWhitenScale
    float* v_splat_features;  // [N, channels], added to
};
void blend_backward(const BlendBackward& a, Stream stream);
// The same from checkpoints, without features; capacity as in `emit`.
void blend_backward_splats(const BlendBackward& a, int64_t capacity, Stream stream);

// From the rows: dLoss / d(centre) and its absolute twin, [N, 2] each.
void centre_gradients(const Splat* splats, const uint32_t* splat_of, const float* rows, int64_t n, float* means2d,
                      float* absolute, Stream stream);

struct ProjectBackward {
    const Frame* frame;
    SceneArrays scene;
    const Splat* splats;
    const uint32_t* splat_of;  // [N] kNone: not drawn, the gradients are zero
    const float* rows;         // [capacity, kRow]
    float* gradients[5];       // written whole; as the scene's arrays
    double* pose;              // [15] added to: rotation (row-major), translation, centre of projection
};
void project_backward(const ProjectBackward& a, Stream stream);
// v_pose [12] from the sums.
void finish_pose(const Frame* frame, const double* pose, float* v_pose, Stream stream);
// With penalties and Adam, in place on `values`, unless the guard refuses.
void fused_step(const ProjectBackward& a, float* const values[5], const Moments& moments, const Record* record,
                Stream stream);

}  // namespace splat::gpu
