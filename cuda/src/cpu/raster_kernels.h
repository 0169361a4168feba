// The stages of the rasterizer, on raw pointers. raster.cpp strings them together.
#pragma once

#include <cstdint>

#include "isa.h"
#include "splat/blending.h"
#include "splat/projection.h"
#include "splat/scene.h"

namespace splat::cpu {

// A tile is 4 x 4 blocks of 4 x 4 pixels; a block is what one vector holds.
inline constexpr int kRange = 1024;  // Gaussians that a task takes
inline constexpr int kBlock = 4;
inline constexpr int kBlocks = 16;
inline constexpr int kTilePixels = kTile * kTile;
static_assert(kTile == kBlock * 4);

struct BlendForward {
    Grid grid;
    const Splat* splats;           // [N]
    const uint32_t* list;          // Gaussians of every tile, front to back
    const uint64_t* starts;        // [tiles + 1] into list
    float background[3];
    const float* features;         // [N, channels]
    int channels;
    bool want_median;
    float* image;                  // [H, W, 3]
    float* alpha;                  // [H, W]
    float* depth;                  // [H, W] or null
    float* median_depth;           // [H, W] or null
    int32_t* ids;                  // [H, W] or null
    float* feature_image;          // [H, W, channels] or null
    // State for the backward pass; pixels in order of tile, block, lane.
    float* transmittance;          // behind the last splat
    int32_t* end;                  // position in the tile's list behind the last splat that counted
    int32_t* median;               // position in the tile's list of the median splat or -1; or null
    float* sums;                   // [tiles, 16 blocks, 1 + channels, 16]: w z, then w f; or null
    float* contribution;           // [instances] sum of w, or null
};

struct BlendBackward {
    Grid grid;
    const Splat* splats;
    const uint32_t* list;
    const uint64_t* starts;
    float background[3];
    const float* features;
    int channels;
    const float* transmittance;
    const int32_t* end;
    const int32_t* median;
    const float* v_image;          // gradients of the outputs; null is zero
    const float* v_alpha;
    const float* v_depth;
    const float* v_median_depth;
    const float* v_features;
    const float* depth;            // the forward output, where v_depth is given
    bool want_absgrad;
    float* rows;                   // [instances, kRow]
    float* v_splat_features;       // [instances, channels] or null
    float* scratch;                // as BlendForward::sums, where any of depth, features has a gradient
};

struct ProjectBackward {
    const View* view;
    SceneArrays scene;
    const Splat* splats;
    const uint8_t* visible;        // [N]
    const float* rows;             // [N, kRow]; defined where visible
    // Where the gradients go; the whole range is written. Null: not wanted.
    float *means, *quats, *log_scales, *logit_opacities, *sh;
    double* pose;                  // [ranges, 15] sums over each range of kRange Gaussians; or null:
                                   // rotation (row-major), translation, centre of projection
};

struct RasterKernels {
    // Projects Gaussians [begin, end): fills splats, visible; lists the visible ones as depth bits << 32 | index
    // from keys[0] on; returns their number. radii (in pixels) may be null.
    int64_t (*project)(const View&, const SceneArrays&, int64_t begin, int64_t end, Splat* splats, uint8_t* visible,
                       uint64_t* keys, int32_t* radii);
    // Of `n` <= 16 splats, those at the low 32 bits of ids: splat i touches tile columns
    // [left[16 k + i], right[16 k + i]] in tile row first[i] + k for k < rows[i]; left > right in rows that it
    // misses. Room for 16 grid.down each.
    void (*tile_rows)(const Splat* splats, const uint64_t* ids, int n, const Grid&, int32_t* first, int32_t* rows,
                      int32_t* left, int32_t* right);
    void (*blend_forward)(const BlendForward&, int64_t tile);
    void (*blend_backward)(const BlendBackward&, int64_t tile);
    void (*project_backward)(const ProjectBackward&, int64_t begin, int64_t end);
    void (*fused_step)(const ProjectBackward&, const FusedStep&, int64_t begin, int64_t end);
};
SPLAT_DECLARE_KERNELS(RasterKernels, raster)

}  // namespace splat::cpu
