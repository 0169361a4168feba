// What adaptive density control keeps of every render (Kerbl et al. 2023, section 5.2).
#pragma once

#include "splat/hd.h"

namespace splat {

// Length of the gradient by a projected centre, from (x, y) per pixel to normalised device coordinates, whose
// range of 2 spans the image: half_width and half_height are those of the image in pixels.
template <class Real>
SPLAT_HD Real centre_gradient(Real x, Real y, Real half_width, Real half_height) {
    const Real a = x * half_width, b = y * half_height;
    return sqrt(fma(a, a, b * b));
}

}  // namespace splat
