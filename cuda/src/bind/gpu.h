// The module of the GPU kernels. Its source is compiled twice: as _cuda, and as _emulated for the tests (see
// src/cuda/device.h). Arrays come as addresses (Tensor.data_ptr()), streams as numbers; a null address is
// an output that is not wanted. Everything is validated in Python, where the message can name the argument.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "device.h"

namespace splat::bind {

namespace nb = nanobind;

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}
inline gpu::Stream stream_of(uintptr_t stream) { return reinterpret_cast<gpu::Stream>(stream); }

void gpu_raster(nb::module_& m);
void gpu_training(nb::module_& m);

}  // namespace splat::bind
