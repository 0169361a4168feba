// What the binding files share: one registration function per area.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace splat::bind {

namespace nb = nanobind;

// Arrays are taken as they are or refused (.noconvert() at every argument): a silent copy would lose
// what a kernel writes. Shapes are validated in Python, where the message can name the argument.
template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

void codecs(nb::module_& m);
void quantize(nb::module_& m);
void raster(nb::module_& m);
void training(nb::module_& m);

}  // namespace splat::bind
