"""Real spherical harmonics, degrees 0 to 3, in the basis of the 3DGS files.

The basis is the usual real orthonormal one with the Condon-Shortley sign, ordered by degree and then by
m = -l..l, so that band 1 is (-y, z, -x) times a constant (Kerbl et al. 2023 and every file format since;
closed forms after Sloan, "Efficient Spherical Harmonic Evaluation", 2013).
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

MAX_DEGREE = 3

C0 = sqrt(1 / (4 * pi))
_C1 = sqrt(3 / (4 * pi))
_C2 = (sqrt(15 / (4 * pi)), sqrt(5 / (16 * pi)), sqrt(15 / (16 * pi)))
_C3 = tuple(sqrt(n / (d * pi)) for n, d in ((35, 32), (105, 4), (21, 32), (7, 16), (105, 16)))


def coefficients(degree: int) -> int:
    """Number of coefficients of all bands up to `degree`: (degree + 1)^2."""
    return (degree + 1) ** 2


def degree_of(count: int) -> int:
    """Degree of `count` coefficients; ValueError where no degree from 0 to 3 has that many."""
    for degree in range(MAX_DEGREE + 1):
        if coefficients(degree) == count:
            return degree
    raise ValueError(f"spherical harmonics have 1, 4, 9 or 16 coefficients, not {count}")


def basis(directions: Tensor, degree: int) -> Tensor:
    """[..., K] values of the basis functions at unit `directions` [..., 3], K = (degree + 1)^2."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            _C2[0] * x * y,
            -_C2[0] * y * z,
            _C2[1] * (2 * zz - xx - yy),
            -_C2[0] * x * z,
            _C2[2] * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -_C3[0] * y * (3 * xx - yy),
            _C3[1] * x * y * z,
            -_C3[2] * y * (4 * zz - xx - yy),
            _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3[2] * x * (4 * zz - xx - yy),
            _C3[4] * z * (xx - yy),
            -_C3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(values, -1)


def evaluate(sh: Tensor, directions: Tensor, degree: int | None = None) -> Tensor:
    """[N, C] sum over the basis of `sh` [N, K, C] at unit `directions` [N, 3].

    `degree` limits the bands that are used; None uses all that are stored. The 0.5 of 3DGS's colours is
    not added here.
    """
    stored = degree_of(sh.shape[-2])
    degree = stored if degree is None else min(degree, stored)
    values = basis(directions, degree)
    return (values.unsqueeze(-1) * sh[..., : coefficients(degree), :]).sum(-2)


def from_rgb(rgb: Tensor) -> Tensor:
    """Band-0 coefficients of colours in [0, 1]: the inverse of `to_rgb`."""
    return (rgb - 0.5) / C0


def to_rgb(sh0: Tensor) -> Tensor:
    """Colours of band-0 coefficients seen from everywhere alike, not clamped."""
    return sh0 * C0 + 0.5


def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Directions [32, 3] and weights [32] that integrate polynomials up to degree 7 over the sphere exactly.

    Four Gauss-Legendre nodes in z times eight azimuths; the products of two bands need degree 6.
    """
    near, far = (sqrt(3 / 7 - sign * 2 / 7 * sqrt(6 / 5)) for sign in (1, -1))
    z = torch.tensor([-far, -near, near, far], dtype=dtype, device=device)
    heavy, light = (18 + sqrt(30)) / 36, (18 - sqrt(30)) / 36
    weight = torch.tensor([light, heavy, heavy, light], dtype=dtype, device=device) * (2 * pi / 8)
    azimuth = torch.arange(8, dtype=dtype, device=device) * (2 * pi / 8)
    radius = torch.sqrt(1 - z * z)[:, None]
    points = torch.stack(
        [radius * torch.cos(azimuth), radius * torch.sin(azimuth), z[:, None].expand(4, 8)], -1
    )
    return points.reshape(32, 3), weight.repeat_interleave(8)


def rotation_matrix(rotation: Tensor, degree: int) -> Tensor:
    """[K, K] block-diagonal matrix that turns coefficients along with the scene.

    With M of a proper `rotation` R [3, 3], the function of M c at direction R d is that of c at d.
    Each band is closed under rotation, so M is the projection of the rotated basis on the basis; the
    integral is taken by a quadrature that is exact for these polynomials. Computed in float64.
    """
    exact = rotation.to(torch.float64)
    directions, weights = _quadrature(exact.dtype, exact.device)
    here = basis(directions, degree) * weights[:, None]
    there = basis(directions @ exact, degree)  # rows R^T d
    matrix = torch.zeros(coefficients(degree), coefficients(degree), dtype=exact.dtype, device=exact.device)
    for band in range(degree + 1):
        part = slice(band**2, (band + 1) ** 2)
        matrix[part, part] = here[:, part].T @ there[:, part]
    return matrix.to(rotation.dtype)


def rotate(sh: Tensor, rotation: Tensor) -> Tensor:
    """`sh` [..., K, C] turned with the scene by the proper rotation [3, 3]."""
    matrix = rotation_matrix(rotation.to(torch.float64), degree_of(sh.shape[-2]))
    return torch.matmul(matrix.to(sh.dtype), sh)
