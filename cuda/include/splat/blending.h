// Alpha of one splat at a pixel, the ellipse where it is drawn, and the whitened moments of its gradient.
//
// alpha = min(kAlphaMax, o exp(-sigma)) is evaluated in the logarithm to base 2, an eighth of it:
//     s = log2(o) / 8 - u'^2 - v'^2,    alpha = (2^s)^8,    s in [-1, 0] wherever alpha >= 1/255,
// so that 2^s is one polynomial on one interval: no rounding, no exponent bits. p', q', r' are the
// whitening factors of projection.h times kWhitenScale, which takes sigma = (u^2 + v^2) / 2 to u'^2 + v'^2.
#pragma once

#include <cstdint>

#include "splat/constants.h"
#include "splat/hd.h"

namespace splat {

inline constexpr float kWhitenScale = 0.30028060f;      // sqrt(log2(e) / 16)
inline constexpr float kExponentMin = -0.99929430f;     // log2(kAlphaMin) / 8
// 2^s on [-1, 0], minimax in relative error: 7.5e-8.
inline constexpr float kAlpha0 = 0.9999999403953552f, kAlpha1 = 0.6931422352790833f, kAlpha2 = 0.24017219245433807f,
                       kAlpha3 = 0.055279724299907684f, kAlpha4 = 0.00918861199170351f,
                       kAlpha5 = 0.0009387883474119008f;

// One projected splat: a cache line.
struct alignas(64) Splat {
    float x, y;          // centre, pixels
    float p, q, r;       // whitening, times kWhitenScale
    float log_opacity;   // log2(o) / 8
    float red, green, blue;
    float depth;         // camera z
    float limit;         // log_opacity - kExponentMin: u'^2 + v'^2 on the ellipse's edge
    uint32_t source;     // the Gaussian, where splats are numbered by themselves
    float unused[4];
};

template <class Real>
SPLAT_HD Real exponent(Real p, Real q, Real r, Real log_opacity, Real dx, Real dy) {
    const Real u = p * dx - q * dy;
    const Real v = r * dy;
    return (log_opacity - u * u) - v * v;
}

// o exp(-sigma) for s in [-1, 0]; relative error 1e-6.
template <class Real>
SPLAT_HD Real alpha_unclamped(Real s) {
    Real e = Real(kAlpha5);
    e = fma(e, s, Real(kAlpha4));
    e = fma(e, s, Real(kAlpha3));
    e = fma(e, s, Real(kAlpha2));
    e = fma(e, s, Real(kAlpha1));
    e = fma(e, s, Real(kAlpha0));
    e = e * e;
    e = e * e;
    return e * e;
}

#if defined(__CUDACC__)
// The GPU has an instruction for 2^x (relative error 1.2e-7 and that of 8 s).
SPLAT_HD float alpha_unclamped(float s) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(8.0f * s));
    return result;
#else
    return alpha_unclamped<float>(s);
#endif
}
#endif

// Horizontal extent [left, right] of the ellipse u'^2 + v'^2 <= limit over rows dy in [low, high]
// (relative to the centre, as is the result). Empty: left > right.
template <class Real>
SPLAT_HD void ellipse_extent(Real p, Real q, Real r, Real limit, Real low, Real high, Real& left, Real& right) {
    // Slack for rounding: the pixels decide.
    limit = fma(limit, Real(1.0001f), Real(1e-6f));
    const Real inv_r = Real(1.0f) / r, inv_p = Real(1.0f) / p;
    const Real top = sqrt(limit) * inv_r;
    // The rightmost point lies at dy = top q / sqrt(q^2 + r^2); the leftmost opposite.
    const Real extreme = top * q / sqrt(q * q + r * r);
    const Real a = max(low, -top), b = min(high, top);
    const Real at_right = min(max(extreme, a), b), at_left = min(max(-extreme, a), b);
    const Real vr = r * at_right, vl = r * at_left;
    const Real zero(0.0f);
    right = (q * at_right + sqrt(max(zero, limit - vr * vr))) * inv_p;
    left = (q * at_left - sqrt(max(zero, limit - vl * vl))) * inv_p;
    const auto empty = a > b;
    left = select(empty, Real(1e30f), left);
    right = select(empty, Real(-1e30f), right);
}

// Sums of g times 1, dx, dy, dx^2, dx dy, dy^2 with d measured from (ox, oy), turned into sums times
// 1, u, v, u^2, u v, v^2. (cx, cy) = (ox, oy) - centre of the splat; p, q, r without kWhitenScale.
template <class Real>
SPLAT_HD void whiten_moments(Real p, Real q, Real r, Real cx, Real cy, Real s, Real sx, Real sy, Real sxx, Real sxy,
                             Real syy, Real& gu, Real& gv, Real& guu, Real& guv, Real& gvv) {
    const Real u0 = p * cx - q * cy, v0 = r * cy;
    const Real lu = p * sx - q * sy;  // first moments of the part of u that varies
    const Real lv = r * sy;
    gu = fma(u0, s, lu);
    gv = fma(v0, s, lv);
    const Real xu = p * sxx - q * sxy, yu = p * sxy - q * syy;
    const Real two(2.0f);
    guu = fma(u0, fma(u0, s, two * lu), p * xu - q * yu);
    guv = fma(u0, gv, fma(v0, lu, r * yu));
    gvv = fma(v0, fma(v0, s, two * lv), r * r * syy);
}

}  // namespace splat
