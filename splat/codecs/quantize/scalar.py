"""Scalar codebooks: the best few values to stand for many."""

from __future__ import annotations

import torch
from torch import Tensor

from splat import _native

# Distinct values up to which the search is exact; more are first gathered in so many bins.
_EXACT = 4096
_REFINEMENTS = 20


def scalar_codebook(values: Tensor, size: int = 256, *, weights: Tensor | None = None) -> Tensor:
    """[size] float32, ascending: the values of least weighted squared error.

    Optimal where there are at most 4,096 distinct values (dynamic programming over the sorted values, whose
    best cuts move monotonically, Wu 1991); otherwise optimal over bins that each hold an equal share of the
    values' range or of their number, then refined by Lloyd's iterations over all of them.

    Args:
        values: any shape, finite, at least one.
        weights: of the same shape, not negative.

    Returns:
        The codebook; where there are fewer distinct values than `size`, the largest one is repeated.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    distinct, mass = _distinct(values, weights)
    if len(distinct) <= _EXACT:
        found = _cut(distinct, mass, min(size, len(distinct)))
    else:
        found = _refine(distinct, mass, _cut(*_bins(distinct, mass), size))
    return torch.cat([found, found[-1:].expand(size - len(found))]).float()


def nearest_scalar(values: Tensor, codebook: Tensor) -> Tensor:
    """int64 of the values' shape: the nearest of the ascending codebook [K], the lower one of equals."""
    codebook = codebook.double()
    middles = (codebook[1:] + codebook[:-1]) / 2
    return torch.searchsorted(middles, values.detach().to(codebook.device, torch.float64).contiguous())


def _distinct(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The distinct values of positive weight, ascending, and their weights; float64, on the CPU."""
    flat = values.detach().double().cpu().flatten()
    if len(flat) == 0:
        raise ValueError("there is no value to make a codebook from")
    distinct, inverse, counts = torch.unique(flat, return_inverse=True, return_counts=True)
    if weights is None:
        return distinct, counts.double()
    if weights.shape != values.shape:
        raise ValueError(f"weights: expected {list(values.shape)}, got {list(weights.shape)}")
    mass = torch.bincount(inverse, weights.detach().double().cpu().flatten(), minlength=len(distinct))
    kept = mass > 0
    return (distinct[kept], mass[kept]) if bool(kept.any()) else (distinct, counts.double())


def _cut(values: Tensor, mass: Tensor, size: int) -> Tensor:
    """[size] means of the runs of least squared error."""
    ends = torch.empty(size, dtype=torch.int64)
    _native.partition(values.contiguous(), mass.contiguous(), ends)
    return _means(values, mass, ends)


def _means(values: Tensor, mass: Tensor, ends: Tensor) -> Tensor:
    """Weighted means of the runs of sorted values that end before `ends`; empty runs are left out."""
    runs = torch.searchsorted(ends, torch.arange(len(values)), right=True)
    weight = torch.bincount(runs, mass, minlength=len(ends))
    sums = torch.bincount(runs, mass * values, minlength=len(ends))
    return (sums / weight)[weight > 0]


def _bins(values: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Means and weights of up to 4,096 bins: half of the cuts equal in range, half equal in weight."""
    half = _EXACT // 2
    low, high = float(values[0]), float(values[-1])
    by_range = torch.searchsorted(values, torch.linspace(low, high, half + 1, dtype=torch.float64)[1:])
    sums = mass.cumsum(0)
    by_mass = torch.searchsorted(sums, torch.linspace(0, float(sums[-1]), half + 1, dtype=torch.float64)[1:])
    ends = torch.unique(torch.cat([by_range, by_mass, torch.tensor([len(values)])]).clamp(1, len(values)))
    runs = torch.searchsorted(ends, torch.arange(len(values)), right=True)
    return _means(values, mass, ends), torch.bincount(runs, mass, minlength=len(ends))


def _refine(values: Tensor, mass: Tensor, codebook: Tensor) -> Tensor:
    """Lloyd's iterations over all values."""
    for _ in range(_REFINEMENTS):
        ends = torch.searchsorted(values, (codebook[1:] + codebook[:-1]) / 2)
        moved = _means(values, mass, torch.cat([ends, torch.tensor([len(values)])]))
        if len(moved) == len(codebook) and torch.equal(moved, codebook):
            break
        codebook = moved
    return codebook
