// Entry points of the rasterizer's kernel files, gathered in kernels/raster.cpp.
#pragma once

#include "raster_kernels.h"

namespace splat::cpu::SPLAT_ISA {

int64_t project_range(const View&, const SceneArrays&, int64_t begin, int64_t end, Splat* splats, uint8_t* visible,
                      uint64_t* keys, int32_t* radii);
void tile_rows(const Splat* splats, const uint64_t* ids, int n, const Grid&, int32_t* first, int32_t* rows,
               int32_t* left, int32_t* right);
void blend_forward(const BlendForward&, int64_t tile);
void blend_backward(const BlendBackward&, int64_t tile);
void project_backward_range(const ProjectBackward&, int64_t begin, int64_t end);
void fused_step_range(const ProjectBackward&, const FusedStep&, int64_t begin, int64_t end);

}  // namespace splat::cpu::SPLAT_ISA
