// The formulas of 3D Gaussian splatting as Markov chain Monte Carlo, per Gaussian.
// Kheradmand et al., NeurIPS 2024: noise of section 4.2, relocation of section 4.3 (equation 9).
#pragma once

#include "splat/hd.h"

namespace splat {

// The noise acts on Gaussians of opacity under about kNoiseOpacity and fades over 1 / kNoiseSharpness.
inline constexpr float kNoiseSharpness = 100.0f;
inline constexpr float kNoiseOpacity = 0.005f;
// One Gaussian becomes at most this many in one relocation.
inline constexpr int kRelocationMax = 51;

// What is added to the centre: gain sigmoid(100 (0.005 - opacity)) Sigma eta, with the covariance
// Sigma = R diag(exp(2 log_scale)) R^T itself, not its root. quat is wxyz, of any length; a zero
// quaternion stands for no rotation.
template <class Real>
SPLAT_HD void mcmc_noise(const Real quat[4], const Real log_scale[3], Real logit_opacity, const Real eta[3],
                         Real gain, Real moved[3]) {
    const Real one(1.0f), two(2.0f);
    const Real w = quat[0], x = quat[1], y = quat[2], z = quat[3];
    const Real s = two / max(w * w + x * x + y * y + z * z, Real(1e-30f));
    const Real r[3][3] = {{one - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)},
                          {s * (x * y + w * z), one - s * (x * x + z * z), s * (y * z - w * x)},
                          {s * (x * z - w * y), s * (y * z + w * x), one - s * (x * x + y * y)}};
    const Real willing = gain * sigmoid(Real(kNoiseSharpness) * (Real(kNoiseOpacity) - sigmoid(logit_opacity)));
    moved[0] = moved[1] = moved[2] = Real(0.0f);
    for (int a = 0; a < 3; ++a) {
        const Real along = (r[0][a] * eta[0] + r[1][a] * eta[1] + r[2][a] * eta[2]) * willing * exp(two * log_scale[a]);
        for (int i = 0; i < 3; ++i) moved[i] = fma(r[i][a], along, moved[i]);
    }
}

struct Relocated {
    double opacity;  // of each of the copies
    double scale;    // what their scales are multiplied by
};

// A Gaussian of `opacity` (below 1) becomes `count` in the same place that together look like the one:
// their transmittances multiply to its own, and the integral of their compound along a line equals its own.
// The paper's double sum over i <= N and k < i is taken over i first: sum_i C(i-1, k) = C(N, k+1).
// In double: the terms alternate and reach (1 + opacity)^N.
SPLAT_HD Relocated mcmc_relocate(double opacity, int count) {
    const double each = -::expm1(::log1p(-opacity) / count);
    double sum = 0.0, power = 1.0, choose = 1.0, sign = 1.0;
    for (int j = 1; j <= count; ++j) {
        power *= each;
        choose *= static_cast<double>(count - j + 1) / j;
        sum += sign * choose * power / ::sqrt(static_cast<double>(j));
        sign = -sign;
    }
    return {each, opacity / sum};
}

}  // namespace splat
