// Real spherical harmonics, degrees 0 to 3, and their slopes (closed forms after Sloan 2013; the order
// and signs of 3DGS files: band 1 is (-y, z, -x) times a constant).
#pragma once

#include "splat/hd.h"

namespace splat {

inline constexpr float kSh0 = 0.28209479177387814f;                          // sqrt(1 / 4 pi)
inline constexpr float kSh1 = 0.48860251190291992f;                          // sqrt(3 / 4 pi)
inline constexpr float kSh2a = 1.0925484305920792f;                          // sqrt(15 / 4 pi)
inline constexpr float kSh2b = 0.31539156525252005f;                         // sqrt(5 / 16 pi)
inline constexpr float kSh2c = 0.54627421529603959f;                         // sqrt(15 / 16 pi)
inline constexpr float kSh3a = 0.59004358992664352f;                         // sqrt(35 / 32 pi)
inline constexpr float kSh3b = 2.8906114426405538f;                          // sqrt(105 / 4 pi)
inline constexpr float kSh3c = 0.45704579946446572f;                         // sqrt(21 / 32 pi)
inline constexpr float kSh3d = 0.37317633259011540f;                         // sqrt(7 / 16 pi)
inline constexpr float kSh3e = 1.4453057213202769f;                          // sqrt(105 / 16 pi)

// Coefficients of all bands up to `degree`.
SPLAT_HD constexpr int sh_coefficients(int degree) { return (degree + 1) * (degree + 1); }

// Values of the basis at the unit vector (x, y, z): y_k for k < (degree + 1)^2.
template <class Real>
SPLAT_HD void sh_basis(int degree, Real x, Real y, Real z, Real* value) {
    value[0] = Real(kSh0);
    if (degree < 1) return;
    value[1] = Real(-kSh1) * y;
    value[2] = Real(kSh1) * z;
    value[3] = Real(-kSh1) * x;
    if (degree < 2) return;
    const Real xx = x * x, yy = y * y, zz = z * z;
    value[4] = Real(kSh2a) * x * y;
    value[5] = Real(-kSh2a) * y * z;
    value[6] = Real(kSh2b) * (Real(2.0f) * zz - xx - yy);
    value[7] = Real(-kSh2a) * x * z;
    value[8] = Real(kSh2c) * (xx - yy);
    if (degree < 3) return;
    const Real ring = Real(4.0f) * zz - xx - yy;
    value[9] = Real(-kSh3a) * y * (Real(3.0f) * xx - yy);
    value[10] = Real(kSh3b) * x * y * z;
    value[11] = Real(-kSh3c) * y * ring;
    value[12] = Real(kSh3d) * z * (Real(2.0f) * zz - Real(3.0f) * (xx + yy));
    value[13] = Real(-kSh3c) * x * ring;
    value[14] = Real(kSh3e) * z * (xx - yy);
    value[15] = Real(-kSh3a) * x * (xx - Real(3.0f) * yy);
}

// Gradient with respect to (x, y, z) of sum_k weight_k y_k(x, y, z).
template <class Real>
SPLAT_HD void sh_basis_backward(int degree, Real x, Real y, Real z, const Real* weight, Real& dx, Real& dy, Real& dz) {
    dx = dy = dz = Real(0.0f);
    if (degree < 1) return;
    dx = Real(-kSh1) * weight[3];
    dy = Real(-kSh1) * weight[1];
    dz = Real(kSh1) * weight[2];
    if (degree < 2) return;
    const Real two(2.0f);
    const Real w4 = Real(kSh2a) * weight[4], w5 = Real(-kSh2a) * weight[5], w6 = Real(kSh2b) * weight[6],
               w7 = Real(-kSh2a) * weight[7], w8 = Real(kSh2c) * weight[8];
    dx = dx + w4 * y - two * w6 * x + w7 * z + two * w8 * x;
    dy = dy + w4 * x + w5 * z - two * w6 * y - two * w8 * y;
    dz = dz + w5 * y + Real(4.0f) * w6 * z + w7 * x;
    if (degree < 3) return;
    const Real xx = x * x, yy = y * y, zz = z * z, three(3.0f), six(6.0f), eight(8.0f);
    const Real w9 = Real(-kSh3a) * weight[9], w10 = Real(kSh3b) * weight[10], w11 = Real(-kSh3c) * weight[11],
               w12 = Real(kSh3d) * weight[12], w13 = Real(-kSh3c) * weight[13], w14 = Real(kSh3e) * weight[14],
               w15 = Real(-kSh3a) * weight[15];
    dx = dx + w9 * six * x * y + w10 * y * z - w11 * two * x * y - w12 * six * x * z +
         w13 * (Real(4.0f) * zz - three * xx - yy) + w14 * two * x * z + w15 * three * (xx - yy);
    dy = dy + w9 * three * (xx - yy) + w10 * x * z + w11 * (Real(4.0f) * zz - xx - three * yy) - w12 * six * y * z -
         w13 * two * x * y - w14 * two * y * z - w15 * six * x * y;
    dz = dz + w10 * x * y + w11 * eight * y * z + w12 * (six * zz - three * (xx + yy)) + w13 * eight * x * z +
         w14 * (xx - yy);
}

}  // namespace splat
