"""Brown's lens distortion as photogrammetry programs parametrise it, in COLMAP's camera models."""

from __future__ import annotations

import numpy as np

from splat.data.intrinsics import Intrinsics

_LARGEST_ERROR = 0.1  # pixels: a tenth of the reprojection error that good models have
_MAX_TANGENT = np.tan(np.radians(60))  # what undistortion uses of a lens


def brown(
    pinhole: tuple[float, float, float, float],
    radial: tuple[float, float, float, float],
    tangential: tuple[float, float],
    width: int,
    height: int,
) -> Intrinsics:
    """The camera x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) + 2 p1 x y + p2 (r^2 + 2 x^2), and y alike.

    COLMAP's models end at r^6, but FULL_OPENCV has a denominator: with k4 the polynomial is replaced by the quotient
    of two cubics in r^2 that fits it best over the photograph.

    Args:
        pinhole: fx, fy, cx, cy, pixels.
        radial: k1 to k4.
        tangential: p1 and p2 in OpenCV's order; Metashape and RealityCapture number them the other way round.

    Raises:
        ValueError: no quotient comes near enough.
    """
    k1, k2, k3, k4 = radial
    p1, p2 = tangential
    values = (*pinhole, *radial, *tangential)
    if not (k3 or k4) or not np.isfinite(values).all():
        return Intrinsics("OPENCV", (*pinhole, k1, k2, p1, p2), width, height)
    numerator: tuple[float, ...] = (k1, k2, k3)
    denominator: tuple[float, ...] = (0.0, 0.0, 0.0)
    if k4:
        numerator, denominator = _quotient(pinhole, np.array(radial), width, height)
    params = (*pinhole, *numerator[:2], p1, p2, numerator[2], *denominator)
    return Intrinsics("FULL_OPENCV", params, width, height)


def _quotient(
    pinhole: tuple[float, float, float, float], radial: np.ndarray, width: int, height: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of the numerator and denominator that replace a polynomial of the fourth degree in r^2."""
    fx, fy, cx, cy = pinhole
    corner = max(np.hypot((x - cx) / fx, (y - cy) / fy) for x in (0, width) for y in (0, height))
    radius = np.linspace(0, _MAX_TANGENT, 1025)[1:]
    factor = 1 + sum(k * radius ** (2 * power) for power, k in enumerate(radial, 1))
    distorted = radius * factor
    # The photograph ends where the distorted radius reaches its corner, or where the polynomial folds back.
    ends = (distorted >= corner) | (np.diff(distorted, append=np.inf) <= 0)
    count = max(16, int(np.argmax(ends)) + 1 if ends.any() else len(radius))
    radius, factor = radius[:count], factor[:count]
    square = (radius / radius[-1]) ** 2
    powers = np.stack([square, square**2, square**3], 1)
    # Linear in the unknowns when multiplied out; weighted by the radius over the denominator found before, so that
    # the residuals are displacements (Sanathanan and Koerner 1963).
    bottom = np.ones(count)
    for _ in range(5):
        weight = radius / bottom
        rows = np.concatenate([powers, -factor[:, None] * powers], 1) * weight[:, None]
        solution = np.linalg.lstsq(rows, (factor - 1) * weight, rcond=1e-12)[0]
        bottom = 1 + powers @ solution[3:]
    fitted = (1 + powers @ solution[:3]) / bottom
    error = float(np.abs((fitted - factor) * radius).max()) * max(fx, fy)
    if not error <= _LARGEST_ERROR:
        raise ValueError(f"radial distortion up to r^8 is replaced with an error of {error:.2g} pixels")
    solution /= radius[-1] ** np.array([2, 4, 6, 2, 4, 6])
    return tuple(map(float, solution[:3])), tuple(map(float, solution[3:]))
