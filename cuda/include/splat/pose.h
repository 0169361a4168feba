// A small rigid motion of a camera in its own frame, and the derivative by its six parameters.
#pragma once

#include "splat/adam.h"
#include "splat/projection.h"

namespace splat {

// A value and its derivative in one direction.
struct Dual {
    float value, slope;
    friend SPLAT_HD Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
    friend SPLAT_HD Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
    friend SPLAT_HD Dual operator*(Dual a, Dual b) {
        return {a.value * b.value, fma(a.value, b.slope, a.slope * b.value)};
    }
    friend SPLAT_HD Dual operator*(float a, Dual b) { return {a * b.value, a * b.slope}; }
};

// m! sum (-q)^n / (2 n + m)!: sin(t) / t, 2 (1 - cos(t)) / t^2 and 6 (t - sin(t)) / t^3 of q = t^2 for m = 1, 2 and
// 3. Eleven terms leave out less than a float's rounding up to half a turn.
template <int m>
SPLAT_HD Dual rotation_series(Dual q) {
    Dual sum{1.0f, 0.0f};
    for (int n = 10; n > 0; --n)
        sum = Dual{1.0f, 0.0f} - (1.0f / static_cast<float>((2 * n + m - 1) * (2 * n + m))) * (q * sum);
    return sum;
}

// exp(xi) times the pose (rotation row-major, translation); xi = (translation / extent, rotation vector). With the
// derivative by xi[along]; along < 0: none. Closed form as in Sola et al. 2018, "A micro Lie theory", equations 143
// and 174.
SPLAT_HD void moved_pose(const float* xi, float extent, const float* rotation, const float* translation, int along,
                         Dual (&new_rotation)[9], Dual (&new_translation)[3]) {
    Dual x[6];
    for (int k = 0; k < 6; ++k) x[k] = {xi[k], k == along ? 1.0f : 0.0f};
    const Dual rho[3] = {extent * x[0], extent * x[1], extent * x[2]}, zero{0.0f, 0.0f};
    const Dual hat[9] = {zero, zero - x[5], x[4], x[5], zero, zero - x[3], zero - x[4], x[3], zero};
    const Dual q = x[3] * x[3] + x[4] * x[4] + x[5] * x[5];
    const Dual a = rotation_series<1>(q), b = 0.5f * rotation_series<2>(q);
    const Dual c = (1.0f / 6) * rotation_series<3>(q);
    Dual turn[9], drift[9];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            const Dual square = hat[3 * i] * hat[j] + hat[3 * i + 1] * hat[3 + j] + hat[3 * i + 2] * hat[6 + j];
            const Dual one{i == j ? 1.0f : 0.0f, 0.0f};
            turn[3 * i + j] = one + a * hat[3 * i + j] + b * square;
            drift[3 * i + j] = one + b * hat[3 * i + j] + c * square;
        }
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j)
            new_rotation[3 * i + j] = rotation[j] * turn[3 * i] + rotation[3 + j] * turn[3 * i + 1] +
                                      rotation[6 + j] * turn[3 * i + 2];
        new_translation[i] = translation[0] * turn[3 * i] + translation[1] * turn[3 * i + 1] +
                             translation[2] * turn[3 * i + 2] + drift[3 * i] * rho[0] + drift[3 * i + 1] * rho[1] +
                             drift[3 * i + 2] * rho[2];
    }
}

// The view from there; an xi of zeros leaves the pose as it is.
SPLAT_HD View moved_view(const View& base, const float* xi, float extent) {
    Dual rotation[9], translation[3];
    moved_pose(xi, extent, base.rotation, base.translation, -1, rotation, translation);
    View view = base;
    for (int k = 0; k < 9; ++k) view.rotation[k] = rotation[k].value;
    for (int k = 0; k < 3; ++k) view.translation[k] = translation[k].value;
    place_view(view);
    return view;
}

// d loss / d xi[along] from that by the moved pose (rotation, translation).
SPLAT_HD float motion_gradient(const View& base, const float* xi, float extent, int along, const float (&v_pose)[12]) {
    Dual rotation[9], translation[3];
    moved_pose(xi, extent, base.rotation, base.translation, along, rotation, translation);
    float sum = 0.0f;
    for (int k = 0; k < 9; ++k) sum = fma(rotation[k].slope, v_pose[k], sum);
    for (int k = 0; k < 3; ++k) sum = fma(translation[k].slope, v_pose[9 + k], sum);
    return sum;
}

// What the refinement of a pose needs in one step: whose it is, and how Adam moves it.
struct PoseRates {
    int view;       // row of the parameters
    float extent;   // unit of the translations
    AdamRates adam;
};

}  // namespace splat
