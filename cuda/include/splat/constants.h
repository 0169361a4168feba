// The constants of projection and blending, once for every backend.
// Python reads them through splat.raster.constants.
#pragma once

namespace splat {

// Depth below which a Gaussian's centre is not drawn (world units).
inline constexpr float kNear = 0.01f;
// The Jacobian is taken with x/z and y/z clamped to the frustum widened on each
// side by this share of its half-width, so that splats far outside stay finite.
inline constexpr float kFrustumMargin = 0.3f;
// Low-pass filter added to the image-space covariance, in square pixels.
inline constexpr float kEps2d = 0.3f;
// Alpha of one splat at a pixel: at most kAlphaMax (keeps 1 - alpha invertible
// in the reverse walk); below kAlphaMin (half a grey level) it is skipped.
inline constexpr float kAlphaMax = 0.99f;
inline constexpr float kAlphaMin = 1.0f / 255.0f;
// The splat that would bring the transmittance under this is left out and ends the pixel.
inline constexpr float kTransmittanceMin = 1e-4f;
// Transmittance at which the median depth is taken.
inline constexpr float kMedianTransmittance = 0.5f;
// Tile edge in pixels.
inline constexpr int kTile = 16;
// Added to SH colours before the clamp at 0.
inline constexpr float kShOffset = 0.5f;

}  // namespace splat
