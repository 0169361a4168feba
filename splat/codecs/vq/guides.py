"""Labels and directions as bytes, guided by what similar Gaussians have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat.codecs.quantize import (
    first_digits,
    gaps,
    guided_decode,
    guided_encode,
    halved,
    most_alike,
    nearest_among,
)
from splat.codecs.quantize.guided import NEAR, UNIT, Known, Tables
from splat.codecs.vq.basis import PARTS as VIEWS
from splat.codecs.vq.scene import Book
from splat.codecs.vq.turns import direction_vectors

# Of each attribute those that its labels are expected to go with, in the order in which they are decoded.
BESIDE: dict[str, tuple[str, ...]] = {
    "scale": (),
    "color": ("scale",),
    "view1": ("color", "scale"),
    "view2": ("view1", "color", "scale"),
    "view3": ("view2", "view1", "color", "scale"),
    "opacity": ("scale", "view1", "view2", "color"),
}
# Contexts: of which of these attributes so many first binary digits, together.
_SIDES = (((0, 5),), ((0, 7), (1, 4)), ((0, 9),), ((1, 8), (2, 3)), ((2, 8),), ((0, 12), (1, 6)))
_ALIKE = 192  # weight of an attribute's difference, over the number of its values
# The same where rotations are expected to be alike.
_TURNED_ALIKE = {"scale": 256, "color": 192, "view1": 64, "view2": 64, "view3": 64, "opacity": 64}
_LEAST_SWING = 3  # levels of fewer directions tell little
_WINDOW = 1024  # Gaussians before, among which the nearest are looked for
_KEPT = 16
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Neighbours:
    """Of Gaussians in the order of the file.

    Attributes:
        near: [N, _KEPT] places of the nearest before each, -1 for none.
        gap: [N] how far the first of them is.
    """

    near: Integers
    gap: Integers

    @staticmethod
    def of(cells: Integers) -> Neighbours:
        """Of [N, 3] cells at the base depth."""
        near = nearest_among(cells, _WINDOW, _KEPT)
        return Neighbours(near, gaps(cells, near))


@dataclass(frozen=True)
class _Coded:
    """An attribute that is known.

    Attributes:
        numbers: [N] places of their words.
        words: [K, D] int16.
    """

    numbers: Integers
    words: Integers

    def values(self) -> Integers:
        return self.words[self.numbers]


def encode_labels(
    labels: Mapping[str, Tensor], books: Mapping[str, Book], beside: Neighbours
) -> dict[str, bytes]:
    """Attribute -> the bytes of its labels [N]."""
    found: dict[str, bytes] = {}
    known: dict[str, _Coded] = {}
    for name in _order(books):
        words = _words(name, books[name])
        numbers = labels[name].numpy()
        # The word of nothing comes last, so that it does not part the others otherwise than their order does.
        numbers = (numbers - 1) % len(words) if name in VIEWS else numbers
        found[name] = b""
        if len(numbers) and len(words) > 1:
            found[name] = guided_encode(numbers, _table(words), _known(name, known, beside))
        known[name] = _Coded(numbers, words)
    return found


def decode_labels(
    parts: Mapping[str, bytes], books: Mapping[str, Book], beside: Neighbours
) -> dict[str, Tensor]:
    """What `encode_labels` was given; ValueError where the bytes cannot come from it."""
    found: dict[str, Tensor] = {}
    known: dict[str, _Coded] = {}
    for name in _order(books):
        words = _words(name, books[name])
        numbers = torch.zeros(len(beside.near), dtype=torch.int64)
        if len(numbers) and len(words) > 1:
            numbers = guided_decode(parts[name], _table(words), _known(name, known, beside))
        elif parts[name]:
            raise ValueError("labels where there is nothing to choose")
        found[name] = (numbers + 1) % len(words) if name in VIEWS else numbers
        known[name] = _Coded(numbers.numpy(), words)
    return found


def encode_directions(
    numbers: Tensor,
    levels: Tensor,
    labels: Mapping[str, Tensor],
    books: Mapping[str, Book],
    beside: Neighbours,
) -> bytes:
    """The directions [N] of rotations, numbers of their levels [N, 3] (turns.py), once the labels are known."""
    swing = levels[:, 0].numpy()
    told = np.flatnonzero(swing > 0)
    if len(told) == 0:
        return b""
    tables, known = _turned(levels.numpy(), told, labels, books, beside)
    places = np.zeros(len(told), np.int64)
    for level in np.unique(swing[told]).tolist():
        here = swing[told] == level
        places[here] = _directions(level)[1][numbers.numpy()[told][here]]
    return guided_encode(places, tables, known)


def decode_directions(
    data: bytes, levels: Tensor, labels: Mapping[str, Tensor], books: Mapping[str, Book], beside: Neighbours
) -> Tensor:
    """[N] int64: what `encode_directions` was given; ValueError where the bytes cannot come from it."""
    numbers = np.zeros(len(levels), np.int64)
    swing = levels[:, 0].numpy()
    told = np.flatnonzero(swing > 0)
    if len(told):
        tables, known = _turned(levels.numpy(), told, labels, books, beside)
        places = guided_decode(data, tables, known).numpy()
        for level in np.unique(swing[told]).tolist():
            here = swing[told] == level
            back = np.argsort(_directions(level)[1], kind="stable")
            numbers[told[here]] = back[places[here]]
    elif data:
        raise ValueError("directions where no rotations are")
    return torch.from_numpy(numbers)


def _order(books: Mapping[str, Book]) -> list[str]:
    return [name for name in BESIDE if name in books]


def _words(name: str, book: Book) -> Integers:
    """[K, D] int16; of the view-dependent colours what is nearest to nothing is the last."""
    words = book.words.numpy().astype(np.int16)
    if name not in VIEWS:
        return words
    low, step = book.low.numpy().astype(np.float64), book.step.numpy().astype(np.float64)
    nothing = np.rint(-low / np.maximum(step, 1e-30)).clip(0, 255).astype(np.int16)
    return np.concatenate([words, nothing[None]])


def _table(words: Integers) -> Tables:
    return Tables(words, np.array([0, len(words)]))


def _known(name: str, known: Mapping[str, _Coded], beside: Neighbours) -> Known:
    others = [known[other] for other in BESIDE[name] if other in known]
    weights = [np.full(other.words.shape[1], _ALIKE // other.words.shape[1]) for other in others]
    alike, unlike = most_alike(beside.near, _beside(others, len(beside.near)), _joined(weights))
    sides: list[Integers] = []
    for parts in _SIDES:
        if parts[0][0] < len(others):
            side = np.zeros(len(beside.near), np.int64)
            for which, kept in parts:
                side <<= kept
                if which < len(others):
                    side += first_digits(others[which].numbers, len(others[which].words), kept)
            sides.append(side)
    return Known(beside.near[:, :NEAR], beside.gap, alike, unlike, sides)


def _turned(
    levels: Integers,
    told: Integers,
    labels: Mapping[str, Tensor],
    books: Mapping[str, Book],
    beside: Neighbours,
) -> tuple[Tables, Known]:
    """For the directions of the Gaussians `told`: neighbours tell of the same axis."""
    swing, axis = levels[:, 0], levels[:, 2]
    kinds, table = np.unique(swing[told], return_inverse=True)
    vectors = [_directions(level)[0] for level in kinds.tolist()]
    starts = np.concatenate([[0], np.cumsum([len(some) for some in vectors])])
    near = beside.near[told]
    useful = (near >= 0) & (axis[near] == axis[told][:, None]) & (swing[near] >= _LEAST_SWING)
    places = np.zeros(len(levels), np.int64)
    places[told] = np.arange(len(told))
    near = np.where(useful, places[near], -1)
    near = np.take_along_axis(near, np.argsort(~useful, axis=1, kind="stable"), 1)
    attributes = [
        (weight, _Coded(labels[name].numpy() - (name in VIEWS), _words(name, books[name])))
        for name, weight in _TURNED_ALIKE.items()
        if name in books
    ]
    weights = [np.full(one.words.shape[1], weight // one.words.shape[1]) for weight, one in attributes]
    features = _beside([one for _, one in attributes], len(levels))[told]
    alike, unlike = most_alike(near, features, _joined(weights))
    known = Known(near[:, :NEAR], beside.gap[told], alike, unlike, [axis[told]], table)
    return Tables(np.concatenate(vectors), starts, unsigned=True), known


def _beside(others: list[_Coded], count: int) -> Integers:
    """[count, F] the values of all of them."""
    return np.concatenate([np.zeros((count, 0), np.int16), *(other.values() for other in others)], 1)


def _joined(weights: list[Integers]) -> Integers:
    return np.concatenate([np.zeros(0, np.int64), *weights])


@functools.lru_cache(maxsize=32)
def _directions(level: int) -> tuple[Integers, Integers]:
    """[K, 3] int16 directions of a level of the swing in an order in which those of the same first digits are alike;
    [K] the place of each in it."""
    # Rounded so coarsely that the last bits of a machine's sines make no difference (tests/codecs/test_vq.py).
    vectors = np.rint(direction_vectors(level).numpy() * UNIT).astype(np.int16)
    order = halved(vectors)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return vectors[order], places
