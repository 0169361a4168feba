"""Scalar codebooks: the best few values to stand for many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat import _native

Floats = npt.NDArray[np.float64]

# Distinct values up to which the search is exact; more are first gathered in so many bins.
_EXACT = 4096
_REFINEMENTS = 20
# The share of the weight at either end that an even grid need not reach.
_TAIL = 1e-3


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
    if weights is not None and weights.shape != values.shape:
        raise ValueError(f"weights: expected {list(values.shape)}, got {list(weights.shape)}")
    if values.numel() == 0:
        raise ValueError("there is no value to make a codebook from")
    ordered = _Sorted(values, weights)
    distinct = np.append(np.flatnonzero(np.diff(ordered.values)) + 1, len(ordered.values))
    if len(distinct) <= _EXACT:
        found = _cut(ordered, distinct, min(size, len(distinct)))
    else:
        found = _refine(ordered, _cut(ordered, ordered.bins(), size))
    codebook = torch.from_numpy(found).float()
    return torch.cat([codebook, codebook[-1:].expand(size - len(codebook))])


def even_codebook(
    values: Tensor, size: int = 256, *, weights: Tensor | None = None, step: float = 0.0
) -> Tensor:
    """[<= size] float32, ascending: multiples of one step, but for rare values far out.

    Values that are entropy-coded after they were rounded take fewest bits for their error on an even grid
    (Gish & Pierce 1968): a codebook of least error spends its words where values crowd, and makes all of them
    equally frequent. The grid spans all but a 1/1000 of the weight at either end, with 15/16 of the words or as
    many as the step needs; the values beyond it share the other words.

    Args:
        values: any shape, finite, at least one.
        weights: of the same shape, not negative.
        step: the least distance of two words of the grid.
    """
    ordered = _Sorted(values, weights)
    low, high = ordered.quantile(_TAIL), ordered.quantile(1 - _TAIL)
    words = max(1, size - 2 * (size // 32))
    step = max(step, (high - low) / max(1, words - 1), float(np.finfo(np.float32).tiny))
    first, last = round(low / step), round(high / step)
    # Rounding the ends may add a word.
    grid = np.arange(first, min(last, first + words - 1) + 1) * step
    parts = [grid]
    for tail in (ordered.values < grid[0] - step / 2, ordered.values > grid[-1] + step / 2):
        if tail.any():
            part = torch.from_numpy(ordered.values[tail].astype(np.float64))
            parts.append(scalar_codebook(part, min(size // 32, len(part))).double().numpy())
    return torch.from_numpy(np.unique(np.concatenate(parts).astype(np.float32)))


def nearest_scalar(values: Tensor, codebook: Tensor) -> Tensor:
    """int64 of the values' shape: the nearest of the ascending codebook [K], the lower one of equals."""
    codebook = codebook.double()
    middles = (codebook[1:] + codebook[:-1]) / 2
    return torch.searchsorted(middles, values.detach().to(codebook.device, torch.float64).contiguous())


class _Sorted:
    """Values in ascending order, and sums of their weights and moments before each."""

    def __init__(self, values: Tensor, weights: Tensor | None) -> None:
        flat = values.detach().cpu().flatten().numpy()
        if weights is None:
            self.values: npt.NDArray[np.floating] = np.sort(flat)
            mass = np.ones(len(flat))
        else:
            mass = weights.detach().double().cpu().flatten().numpy()
            kept = mass > 0
            if not kept.any():
                kept, mass = np.ones_like(kept), np.ones_like(mass)
            order = np.argsort(flat[kept], kind="stable")
            self.values, mass = flat[kept][order], mass[kept][order]
        # About the middle value: sums over values far from the origin would lose their differences.
        self._origin = float(self.values[len(self.values) // 2])
        self._mass = np.concatenate([[0.0], mass.cumsum()])
        moments = (self.values.astype(np.float64) - self._origin) * mass
        self._moments = np.concatenate([[0.0], moments.cumsum()])

    def runs(self, ends: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Means and weights of the runs that end before `ends` (ascending, the last one all); none is empty."""
        ends = np.unique(ends[ends > 0])
        mass = np.diff(self._mass[ends], prepend=0.0)
        return self._origin + np.diff(self._moments[ends], prepend=0.0) / mass, mass

    def quantile(self, share: float) -> float:
        """The value below which this share of the weight lies."""
        at = int(np.searchsorted(self._mass, share * self._mass[-1]))
        return float(self.values[min(max(at - 1, 0), len(self.values) - 1)])

    def bins(self) -> npt.NDArray[np.intp]:
        """Ends of at most 4,096 runs: half of the cuts equal in range, half equal in weight."""
        half = _EXACT // 2
        by_range = np.searchsorted(self.values, np.linspace(self.values[0], self.values[-1], half + 1)[1:])
        by_mass = np.searchsorted(self._mass, np.linspace(0, self._mass[-1], half + 1)[1:-1])
        return np.sort(np.concatenate([by_range, by_mass, [len(self.values)]]))


def _cut(ordered: _Sorted, ends: npt.NDArray[np.intp], size: int) -> Floats:
    """[size] means of the unions of neighbouring runs that have the least squared error."""
    values, mass = ordered.runs(ends)
    cuts = np.empty(min(size, len(values)), np.int64)
    _native.partition(values, mass, cuts)
    bounds = np.concatenate([[0], cuts[:-1]])
    return np.add.reduceat(values * mass, bounds) / np.add.reduceat(mass, bounds)


def _refine(ordered: _Sorted, codebook: Floats) -> Floats:
    """Lloyd's iterations over all values."""
    for _ in range(_REFINEMENTS):
        ends = np.searchsorted(ordered.values, (codebook[1:] + codebook[:-1]) / 2)
        moved, _ = ordered.runs(np.append(ends, len(ordered.values)))
        if np.array_equal(moved, codebook):
            break
        codebook = moved
    return codebook
