// The photometric loss (1 - w) L1 + w (1 - SSIM): the formulas of one pixel and channel.
// SSIM: Wang et al., "Image quality assessment", IEEE TIP 2004, section III.
#pragma once

#include "splat/hd.h"

namespace splat {

// Local statistics are taken over kSsimWindow^2 samples of a Gaussian of kSsimSigma pixels; the photograph
// and the rendering count as zero outside the image.
inline constexpr int kSsimWindow = 11;
inline constexpr int kSsimRadius = kSsimWindow / 2;
inline constexpr float kSsimSigma = 1.5f;
// (0.01 L)^2 and (0.03 L)^2 for images of range L = 1.
inline constexpr float kSsimC1 = 1e-4f;
inline constexpr float kSsimC2 = 9e-4f;

// exp(-k^2 / (2 sigma^2)) at distance k = 0..5 from the centre over its sum from -5 to 5.
inline constexpr float kSsimWeights[kSsimRadius + 1] = {0.26601172f, 0.21300554f, 0.10936069f,
                                                        0.03600077f, 0.00759876f, 0.00102838f};

// SSIM of one window and its derivatives by the window means of x, x^2 and x y, for x the rendering and y
// the photograph. As the window is symmetric, d(sum of SSIM) / dx
//   = blur(d_mean) + 2 x blur(d_square) + y blur(d_product).
template <class Real>
struct SsimPoint {
    Real value, d_mean, d_square, d_product;
};

// mean_x, mean_y, squares, product: window means of x, y, x^2 + y^2 and x y.
template <class Real>
SPLAT_HD SsimPoint<Real> ssim_point(Real mean_x, Real mean_y, Real squares, Real product) {
    const Real two(2.0f);
    const Real means = mean_x * mean_y;
    const Real means2 = fma(mean_x, mean_x, mean_y * mean_y);
    const Real a1 = fma(two, means, Real(kSsimC1)), a2 = fma(two, product - means, Real(kSsimC2));
    const Real b1 = means2 + Real(kSsimC1), b2 = squares - means2 + Real(kSsimC2);
    const Real inverse = Real(1.0f) / (b1 * b2);
    const Real value = a1 * a2 * inverse;
    const Real by_b1 = b2 * inverse, by_b2 = b1 * inverse;  // 1 / b1 and 1 / b2
    const Real d_mean = fma(mean_y * (a2 - a1), inverse, mean_x * value * (by_b2 - by_b1));
    return {value, two * d_mean, -value * by_b2, two * a1 * inverse};
}

}  // namespace splat
