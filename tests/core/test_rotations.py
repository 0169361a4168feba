"""Quaternions, matrices and axis-angle vectors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import rotations

F64 = torch.float64
number = st.floats(-3, 3)
quaternion = st.tuples(number, number, number, number).filter(lambda q: math.hypot(*q) > 1e-3)


@settings(max_examples=100)
@given(a=quaternion, b=quaternion, length=st.floats(1e-6, 1e6))
def test_quaternions_and_matrices_agree(a: tuple[float, ...], b: tuple[float, ...], length: float) -> None:
    qa, qb = (torch.tensor(q, dtype=F64) for q in (a, b))
    ma, mb = rotations.quat_to_matrix(qa), rotations.quat_to_matrix(qb)
    torch.testing.assert_close(ma @ ma.T, torch.eye(3, dtype=F64), rtol=0, atol=1e-12)
    assert float(torch.linalg.det(ma)) == pytest.approx(1)
    torch.testing.assert_close(rotations.quat_to_matrix(qa * length), ma, rtol=0, atol=1e-12)
    product = rotations.quat_to_matrix(rotations.quat_multiply(qa, qb))
    torch.testing.assert_close(product, ma @ mb, rtol=0, atol=1e-12)
    back = rotations.matrix_to_quat(ma)
    unit = qa / qa.norm()
    assert float(back[0]) >= 0
    assert min(float((back - unit).norm()), float((back + unit).norm())) < 1e-12


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_a_quaternion(axis: int) -> None:
    """The trace is -1 there: formulas that divide by w fail."""
    matrix = -torch.eye(3, dtype=F64)
    matrix[axis, axis] = 1
    quat = rotations.matrix_to_quat(matrix)
    torch.testing.assert_close(rotations.quat_to_matrix(quat), matrix)


def test_conventions() -> None:
    """wxyz, active: a quarter turn about z takes x to y."""
    quarter = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], dtype=F64)
    expected = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=F64)
    torch.testing.assert_close(rotations.quat_to_matrix(quarter), expected)
    torch.testing.assert_close(rotations.exp_map(torch.tensor([0, 0, math.pi / 2], dtype=F64)), expected)


def test_the_zero_quaternion_is_no_rotation() -> None:
    quat = torch.zeros(4, dtype=F64, requires_grad=True)
    matrix = rotations.quat_to_matrix(quat)
    assert torch.equal(matrix, torch.eye(3, dtype=F64))
    matrix.sum().backward()
    assert torch.isfinite(quat.grad).all()


@settings(max_examples=100)
@given(vector=st.tuples(number, number, number), shrink=st.sampled_from([1.0, 1e-2, 4e-4, 1e-5, 0.0]))
def test_exp_map_is_the_exponential_series(vector: tuple[float, ...], shrink: float) -> None:
    """Forty terms; the largest, 5.2^5 / 5! = 32, bounds the rounding (torch's matrix_exp is 1e-11 off)."""
    v = torch.tensor(vector, dtype=F64) * shrink
    generator = rotations.cross_matrix(v)
    term = total = torch.eye(3, dtype=F64)
    for k in range(1, 40):
        term = term @ generator / k
        total = total + term
    torch.testing.assert_close(rotations.exp_map(v), total, rtol=0, atol=32 * 2**-50)


@pytest.mark.parametrize("size", [0.0, 1e-8, 9.9e-4, 1.1e-3, 1.0, 3.1])
def test_exp_map_has_the_right_gradient_everywhere(size: float) -> None:
    """Also at zero, and on both sides of the series' end at 1e-3."""
    v = size * torch.tensor([0.6, 0.0, -0.8], dtype=F64)
    assert torch.autograd.gradcheck(rotations.exp_map, v.requires_grad_())
