"""Entropy coding of words of codebooks by what similar things hold: on which side of each halving a word should lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat import _native

NEAR: int = _native.constants.GUIDED_NEAR
SIDES: int = _native.constants.GUIDED_SIDES
UNIT: int = _native.constants.GUIDED_UNIT
_CLASSES: int = _native.constants.GUIDED_UNLIKE
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Tables:
    """Codebooks that symbols number.

    Attributes:
        words: [sum of their sizes, D] int16, table by table; words of the same first digits should be alike.
        starts: [T + 1] where each begins.
        unsigned: words are vectors of the length UNIT, and a word and its negative the same.
    """

    words: Integers
    starts: Integers
    unsigned: bool = False


@dataclass(frozen=True)
class Known:
    """What is known of n symbols before they are.

    Attributes:
        near: [n, NEAR] places of earlier ones that are close, the closest first, -1 for none.
        gap: [n] how far the first of them is, as a small number (`gaps`).
        alike, unlike: [n] of `most_alike`.
        side: at most SIDES arrays [n] of numbers.
        table: [n] the table of each; by default the first.
    """

    near: Integers
    gap: Integers
    alike: Integers
    unlike: Integers
    side: list[Integers] = field(default_factory=list)
    table: Integers | None = None

    def arrays(self) -> tuple[Integers, ...]:
        n = len(self.near)
        side = np.zeros((n, len(self.side)), np.int32)
        for i, column in enumerate(self.side):
            side[:, i] = column
        table = np.zeros(n, np.int32) if self.table is None else self.table
        return (*map(_int32, (table, self.near, self.alike, self.unlike, self.gap)), side)


def guided_encode(symbols: Tensor | Integers, tables: Tables, known: Known) -> bytes:
    """The symbols [n], numbers of words of their tables, in about the bits that they need with what is known.

    Source: logistic mixing, Mahoney 2005; cuda/src/cpu/guided.cpp.
    """
    values = symbols.numpy() if isinstance(symbols, Tensor) else symbols
    return _native.guided_encode(_int32(values), *_tables(tables), *known.arrays(), tables.unsigned)


def guided_decode(data: bytes, tables: Tables, known: Known) -> Tensor:
    """[n] int64: what `guided_encode` was given; ValueError where the bytes cannot come from it."""
    symbols = np.empty(len(known.near), np.int32)
    view = np.frombuffer(data, np.uint8)
    if not _native.guided_decode(view, *_tables(tables), *known.arrays(), tables.unsigned, symbols):
        raise ValueError("the coded words are damaged")
    return torch.from_numpy(symbols).long()


def nearest_among(cells: Integers, window: int, kept: int) -> Integers:
    """[n, kept] int32: places of the nearest among the `window` cells before each of [n, 3], -1 where there are none;
    coordinates lie in [0, 2^30)."""
    near = np.empty((len(cells), kept), np.int32)
    _native.nearest_among(_int32(cells), window, near)
    return near


def gaps(cells: Integers, near: Integers) -> Integers:
    """[n] binary digits of the squared distance of each cell of [n, 3] to the first of `near`; 63: none."""
    first = near[:, 0]
    apart = cells.astype(np.int64) - cells[np.maximum(first, 0)]
    square = (apart * apart).sum(1)
    return np.where(first < 0, 63, np.minimum(_digits(square), 62))


def most_alike(near: Integers, features: Integers, weights: Integers) -> tuple[Integers, Integers]:
    """[n] the place among `near` [n, M] whose features [n, D] differ least, and a class of by how much.

    The difference is the sum of the weighted differences of features / 64, and 2 for every place that is closer.
    """
    n = len(near)
    alike, unlike = np.empty(n, np.int32), np.empty(n, np.int32)
    _native.most_alike(_int32(near), np.ascontiguousarray(features, np.int16), _int32(weights), alike, unlike)
    # 0 up to 1, 1 up to 2, 2 up to 4, ...
    return alike, np.minimum(_digits(np.maximum(unlike, 1) - 1), _CLASSES - 1)


def halved(vectors: Integers) -> Integers:
    """[n] an order of vectors [n, 3] int16 in which those of the same first digits are alike: a k-d tree."""
    order = np.empty(len(vectors), np.int32)
    _native.halved(np.ascontiguousarray(vectors, np.int16), order)
    return order


def _digits(values: Integers) -> Integers:
    """[n] binary digits of numbers that are not negative, of those from 2^53 on to rounding."""
    return np.frexp(values.astype(np.float64))[1]


def _tables(tables: Tables) -> tuple[Integers, Integers]:
    return np.ascontiguousarray(tables.words, np.int16), np.ascontiguousarray(tables.starts, np.int64)


def _int32(values: Integers) -> Integers:
    return np.ascontiguousarray(values, np.int32)
