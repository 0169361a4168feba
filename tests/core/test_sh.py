"""Spherical harmonics: the basis, its conventions and rotation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import rotations, sh

F64 = torch.float64
angles = st.tuples(*[st.floats(-7, 7)] * 3)


def directions(count: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=F64, generator=random), dim=-1)


def test_the_basis_is_orthonormal_on_the_sphere() -> None:
    """Integrated by a product rule of 400 x 40 points: exact for polynomials of degree 6."""
    z, weights = (torch.from_numpy(a) for a in __import__("numpy").polynomial.legendre.leggauss(40))
    azimuth = torch.arange(400, dtype=F64) * (2 * math.pi / 400)
    radius = torch.sqrt(1 - z * z)[:, None]
    points = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z[:, None].expand(40, 400)], -1)
    values = sh.basis(points, 3)
    product = torch.einsum("zak,zal,z->kl", values, values, weights) * (2 * math.pi / 400)
    torch.testing.assert_close(product, torch.eye(16, dtype=F64), rtol=0, atol=1e-13)


def test_signs_and_order_are_those_of_the_files() -> None:
    """Kerbl et al. store band 1 as (-y, z, -x); of the higher bands, known values along the axes."""
    x, y, z = torch.eye(3, dtype=F64)
    c1 = 0.4886025119029199
    assert sh.basis(x, 1).tolist() == pytest.approx([0.28209479177387814, 0, 0, -c1])
    assert sh.basis(y, 1).tolist() == pytest.approx([0.28209479177387814, -c1, 0, 0])
    assert sh.basis(z, 1).tolist() == pytest.approx([0.28209479177387814, 0, c1, 0])
    diagonal = torch.tensor([1.0, 2.0, 2.0], dtype=F64) / 3
    a, b, c = 1 / 3, 2 / 3, 2 / 3
    expected = [
        1.0925484305920792 * a * b,
        -1.0925484305920792 * b * c,
        0.31539156525252005 * (2 * c * c - a * a - b * b),
        -1.0925484305920792 * a * c,
        0.5462742152960396 * (a * a - b * b),
        -0.5900435899266435 * b * (3 * a * a - b * b),
        2.890611442640554 * a * b * c,
        -0.4570457994644658 * b * (4 * c * c - a * a - b * b),
        0.3731763325901154 * c * (2 * c * c - 3 * a * a - 3 * b * b),
        -0.4570457994644658 * a * (4 * c * c - a * a - b * b),
        1.445305721320277 * c * (a * a - b * b),
        -0.5900435899266435 * a * (a * a - 3 * b * b),
    ]
    assert sh.basis(diagonal, 3)[4:].tolist() == pytest.approx(expected, rel=1e-14)


@settings(max_examples=50)
@given(vector=angles, degree=st.integers(0, 3), seed=st.integers(0, 99))
def test_rotated_coefficients_are_the_function_turned(
    vector: tuple[float, ...], degree: int, seed: int
) -> None:
    """At R d the rotated function has the value that the original has at d."""
    rotation = rotations.exp_map(torch.tensor(vector, dtype=F64))
    random = torch.Generator().manual_seed(seed)
    stored = torch.randn(20, sh.coefficients(degree), 3, dtype=F64, generator=random)
    d = directions(20, seed)
    turned = sh.evaluate(sh.rotate(stored, rotation), d @ rotation.T)
    torch.testing.assert_close(turned, sh.evaluate(stored, d), rtol=0, atol=1e-12)


@settings(max_examples=50)
@given(first=angles, second=angles)
def test_rotation_matrices_multiply_and_keep_lengths(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    a, b = (rotations.exp_map(torch.tensor(v, dtype=F64)) for v in (first, second))
    both = sh.rotation_matrix(a @ b, 3)
    torch.testing.assert_close(both, sh.rotation_matrix(a, 3) @ sh.rotation_matrix(b, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(both @ both.T, torch.eye(16, dtype=F64), rtol=0, atol=1e-12)


def test_float32_coefficients_rotate_within_1e_6() -> None:
    """Rows of 7 products of values up to 1: 7 roundings of 2^-24 at most."""
    rotation = rotations.exp_map(torch.tensor([1.0, -2.0, 0.5], dtype=F64))
    stored = torch.rand(100, 16, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = sh.rotate(stored.double(), rotation)
    assert float((sh.rotate(stored, rotation.float()).double() - exact).abs().max()) < 1e-6


def test_degree_limits_and_colours() -> None:
    stored = torch.randn(4, 16, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    d = directions(4)
    assert torch.equal(sh.evaluate(stored, d, 1), sh.evaluate(stored[:, :4], d))
    assert torch.equal(sh.evaluate(stored[:, :4], d, 3), sh.evaluate(stored[:, :4], d))
    rgb = torch.rand(5, 3, dtype=F64)
    torch.testing.assert_close(sh.to_rgb(sh.from_rgb(rgb)), rgb)
    torch.testing.assert_close(sh.evaluate(sh.from_rgb(rgb)[:, None], directions(5)) + 0.5, rgb)
    with pytest.raises(ValueError, match="not 5"):
        sh.degree_of(5)
