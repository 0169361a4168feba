// The rasterizer.
#include "bind.h"
#include "isa.h"

namespace splat::bind {

void raster(nb::module_& m) {
    m.def("isa", [] { return cpu::isa_name(cpu::active_isa()); }, "Instruction set of the kernels that run here.");
}

}  // namespace splat::bind
