#include "raster_parts.h"

namespace splat::cpu::SPLAT_ISA {

extern const RasterKernels raster{&project_range,  &tile_rows,      &blend_forward,
                                  &blend_backward, &project_backward_range, &fused_step_range};

}  // namespace splat::cpu::SPLAT_ISA
