"""Entropy coding of indices by what is known beside them: their neighbours' and other numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat import _native

NEAR: int = _native.constants.MIXING_NEAR
SIDE: int = _native.constants.MIXING_SIDE
LARGEST_SIZE = 1 << 20
Integers = npt.NDArray[np.integer]


def mixing_encode(
    symbols: Tensor | Integers, size: int, near: Integers | None = None, side: list[Integers] | None = None
) -> bytes:
    """Symbols in about as many bits as adaptive models of their digits need under several contexts at once.

    Args:
        symbols: [n] integers in [0, size); similar ones should be close in number (`tree_order`).
        near: [n, NEAR] places of earlier symbols that each probably resembles, -1 for none; by default the last ones.
        side: at most SIDE arrays [n] of small numbers that are known of each.

    The decoder needs the same size, near and side. Source: logistic mixing, Mahoney 2005; cuda/src/cpu/mixing.cpp.
    """
    values = np.ascontiguousarray(symbols.numpy() if isinstance(symbols, Tensor) else symbols, np.int32)
    if len(values) == 0:
        return b""
    if not 0 <= int(values.min()) <= int(values.max()) < size:
        raise ValueError(f"symbols lie outside 0 to {size - 1}")
    return _native.mixing_encode(values, size, *_known(len(values), near, side))


def mixing_decode(
    data: bytes, size: int, n: int, near: Integers | None = None, side: list[Integers] | None = None
) -> Tensor:
    """[n] int64: what `mixing_encode` was given; ValueError where the bytes cannot come from it."""
    if n == 0 and not data:
        return torch.zeros(0, dtype=torch.int64)
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"no symbols lie below {size}")
    symbols = np.empty(n, np.int32)
    if not _native.mixing_decode(np.frombuffer(data, np.uint8), size, *_known(n, near, side), symbols):
        raise ValueError("the coded indices are damaged")
    return torch.from_numpy(symbols).long()


def nearest_before(cells: Integers) -> Integers:
    """[n, NEAR] places of the nearest among the 128 cells before each of [n, 3], -1 where there are none; coordinates
    lie in [0, 2^30)."""
    near = np.empty((len(cells), NEAR), np.int32)
    _native.nearest_before(np.ascontiguousarray(cells, np.int32), near)
    return near


def first_digits(labels: Integers, size: int, kept: int) -> Integers:
    """[n] the highest `kept` binary digits of labels below `size`: a context."""
    return labels >> max(0, (size - 1).bit_length() - kept)


def tree_order(values: Tensor, counts: Tensor) -> Tensor:
    """[K] an order of [K, D] codewords in which those of the same first digits are alike.

    A k-d tree: words are halved, to powers of two, along the column that varies most among them, weighted by `counts`.
    """
    words, weight = values.double().numpy(), counts.double().numpy() + 1e-3
    placed: list[Integers] = []
    left = [(np.arange(len(words)), max(0, len(words) - 1).bit_length())]
    while left:
        chosen, digits = left.pop()
        half = 1 << max(0, digits - 1)
        if len(chosen) <= 1:
            placed.append(chosen)
        elif len(chosen) <= half:
            left.append((chosen, digits - 1))
        else:
            here, share = words[chosen], weight[chosen, None] / weight[chosen].sum()
            spread = ((here - (share * here).sum(0)) ** 2 * share).sum(0)
            ranked = chosen[np.argsort(here[:, spread.argmax()], kind="stable")]
            left += [(ranked[half:], digits - 1), (ranked[:half], digits - 1)]
    return torch.from_numpy(np.concatenate(placed)) if len(words) else torch.zeros(0, dtype=torch.int64)


def _known(n: int, near: Integers | None, side: list[Integers] | None) -> tuple[Integers, Integers]:
    before = np.arange(n)[:, None] - np.arange(1, NEAR + 1) if near is None else near
    columns = np.zeros((n, SIDE), np.int32)
    for i, column in enumerate(side or []):
        columns[:, i] = column
    return np.ascontiguousarray(np.maximum(before, -1), np.int32), columns
