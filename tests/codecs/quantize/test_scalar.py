"""Scalar codebooks against brute force, and the values that they give."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splat.codecs.quantize import even_codebook, nearest_scalar, scalar_codebook


def error(values: Tensor, codebook: Tensor, weights: Tensor) -> float:
    difference = values.double() - codebook.double()[nearest_scalar(values, codebook)]
    return float((difference.square() * weights.double()).sum())


def least_error(values: Tensor, weights: Tensor, size: int) -> float:
    """The least weighted error of any partition of the sorted values into `size` runs, by trying all."""
    order = values.argsort()
    x, w = values[order].double(), weights[order].double()

    def cost(a: int, b: int) -> float:
        mean = (x[a:b] * w[a:b]).sum() / w[a:b].sum()
        return float((w[a:b] * (x[a:b] - mean).square()).sum())

    cuts = ((0, *inner, len(x)) for inner in combinations(range(1, len(x)), size - 1))
    return min(sum(cost(a, b) for a, b in pairwise(cut)) for cut in cuts)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 4)), min_size=1, max_size=9), st.integers(1, 4)
)
def test_optimal_for_few_values(points: list[tuple[int, int]], size: int) -> None:
    values = torch.tensor([float(v) for v, _ in points])
    weights = torch.tensor([float(w) for _, w in points])
    codebook = scalar_codebook(values, size, weights=weights)
    assert codebook.shape == (size,)
    assert codebook.equal(codebook.sort().values)
    best = least_error(values, weights, min(size, len(values)))
    # Codewords are rounded to float32 about values of at most 50.
    assert error(values, codebook, weights) <= best + len(values) * 4 * (50 * 2**-23) * 100


def test_many_values_come_near_to_the_limit_of_fine_quantization() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    codebook = scalar_codebook(values, 256)
    # Panter & Dite 1951: sqrt(3) pi / 2 / K^2 for the normal distribution, from above as K grows.
    limit = 3**0.5 * torch.pi / 2 / 256**2
    assert error(values, codebook, torch.ones(200_000)) / 200_000 < 1.02 * limit
    exact = scalar_codebook(values[:4096], 256)
    assert error(values[:4096], exact, torch.ones(4096)) < error(values[:4096], codebook, torch.ones(4096))


def test_far_values_and_few_distinct_ones() -> None:
    values = torch.tensor([1e6, 1e6 + 1, -3.0, 1e6])
    assert scalar_codebook(values, 3).tolist() == [-3.0, 1e6, 1e6 + 1]
    assert scalar_codebook(values, 5).tolist() == [-3.0, 1e6, 1e6 + 1, 1e6 + 1, 1e6 + 1]
    assert scalar_codebook(values, 1, weights=torch.tensor([0.0, 0, 1, 0])).tolist() == [-3.0]
    with pytest.raises(ValueError, match="no value"):
        scalar_codebook(torch.empty(0), 4)


def test_nearest_takes_the_lower_of_equals() -> None:
    codebook = torch.tensor([0.0, 1.0, 1.0, 4.0])
    values = torch.tensor([[-9.0, 0.5, 0.6], [1.0, 2.5, 2.6]])
    assert codebook[nearest_scalar(values, codebook)].tolist() == [[0, 0, 1], [1, 1, 4]]


def test_even_codebooks_are_grids_with_rare_tails() -> None:
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    values[:2] = torch.tensor([-90.0, 70.0])
    codebook = even_codebook(values, 64)
    assert len(codebook) <= 64
    assert codebook.equal(codebook.sort().values)
    gaps = codebook.diff()
    step = float(gaps.median())
    grid = (gaps - step).abs() < 1e-4
    assert int(grid.sum()) >= 55
    difference = (values - codebook[nearest_scalar(values, codebook)]).abs()
    inside = (values > -3) & (values < 3)
    assert float(difference[inside].max()) <= step / 2 * 1.001
    assert float(difference[:2].max()) < 1e-4

    coarse = even_codebook(values, 64, step=0.5)
    assert bool(((coarse / 0.5 - (coarse / 0.5).round()).abs() < 1e-6)[4:-4].all())
    assert even_codebook(torch.full((5,), 2.5), 64).tolist() == [2.5]
    weights = torch.zeros(50_000)
    weights[values > 1] = 1
    assert float(even_codebook(values, 64, weights=weights).amin()) > 0.9


def test_even_codebooks_take_fewer_bits_for_their_error() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))

    def rate_and_error(codebook: Tensor) -> tuple[float, float]:
        labels = nearest_scalar(values, codebook)
        shares = torch.bincount(labels).double() / len(values)
        bits = -(shares * shares.clamp(min=1e-12).log2()).sum()
        return float(bits), error(values, codebook, torch.ones(len(values))) / len(values)

    (bits, noise), (best_bits, best_noise) = (
        rate_and_error(make(values, 64)) for make in (even_codebook, scalar_codebook)
    )
    # At equal error the rates differ by half the logarithm of the ratio of errors. In the limit of fine steps a
    # codebook whose density goes with p^(1/3), which has the least error, takes E log2(p^(1/3)) +
    # log2(E p^(-2/3)) / 2 = 0.156 bits more than an even one for the normal distribution.
    saved = best_bits - (bits + 0.5 * math.log2(noise / best_noise))
    assert 0.1 < saved < 0.3
