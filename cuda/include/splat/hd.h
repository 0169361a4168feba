// What the mathematics is written in: functions that compile for host and device, over a number type
// that is float (CUDA, scalar code) or a vector of floats (cpu/simd.h).
//
// min and max give their second argument where either is NaN: the one that may be stands second.
//
// A template over Real uses + - * /, comparisons (giving bool or a mask), &, |, ! of those, and
// fma, min, max, sqrt, abs, exp, log2, select(mask, a, b), found by argument-dependent lookup for vectors and here
// for float.
#pragma once

#if defined(__CUDACC__)
#define SPLAT_HD __host__ __device__ __forceinline__
#else
#define SPLAT_HD inline __attribute__((always_inline))
#endif

#include <cmath>

namespace splat {

// Distinct names for float, so that no overload of the standard library is picked by accident.
SPLAT_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
SPLAT_HD float min(float a, float b) { return a < b ? a : b; }
SPLAT_HD float max(float a, float b) { return a > b ? a : b; }
SPLAT_HD float sqrt(float a) { return ::sqrtf(a); }
SPLAT_HD float abs(float a) { return ::fabsf(a); }
SPLAT_HD float exp(float a) { return ::expf(a); }
SPLAT_HD float log2(float a) { return ::log2f(a); }
SPLAT_HD float select(bool mask, float a, float b) { return mask ? a : b; }

// 1 / (1 + exp(-x)), exact at both ends.
template <class Real>
SPLAT_HD Real sigmoid(Real x) {
    return Real(1.0f) / (Real(1.0f) + exp(-x));
}

}  // namespace splat
