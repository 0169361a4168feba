"""Codebooks and what belongs to their words as bytes, and the labels of version 3: each by what is known before it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat.codecs.quantize import first_digits, mixing_decode, mixing_encode
from splat.codecs.vq.scene import LARGEST_BOOK, Book

# Of each attribute those that its labels are expected to go with, in the order in which they are decoded.
BESIDE = {
    "scale": (),
    "color": ("scale",),
    "view1": ("color", "scale"),
    "view2": ("view1", "color"),
    "view3": ("view2", "view1"),
    "opacity": ("scale", "view1"),
}
_KEPT = (5, 3)  # binary digits of the first and of the second of them
_BYTE = 256
Integers = npt.NDArray[np.integer]


def encode_labels(labels: Mapping[str, Tensor], sizes: Mapping[str, int], near: Integers) -> dict[str, bytes]:
    """Attribute -> the bytes of its labels [N] below its size, as version 3 of the container has them.

    Args:
        near: [N, NEAR] places of Gaussians that come before each and lie close to it.
    """
    known = {name: found.numpy() for name, found in labels.items()}
    return {
        name: mixing_encode(known[name], sizes[name], near, _beside(name, known, sizes)) for name in sizes
    }


def decode_labels(parts: Mapping[str, bytes], sizes: Mapping[str, int], near: Integers) -> dict[str, Tensor]:
    """What `encode_labels` was given; ValueError where the bytes cannot come from it."""
    found: dict[str, Tensor] = {}
    known: dict[str, Integers] = {}
    for name in BESIDE:
        if name in sizes:
            beside = _beside(name, known, sizes)
            found[name] = mixing_decode(parts[name], sizes[name], len(near), near, beside)
            known[name] = found[name].numpy()
    return found


def _beside(name: str, known: Mapping[str, Integers], sizes: Mapping[str, int]) -> list[Integers]:
    """The contexts of an attribute: first digits of the labels of others."""
    pairs = zip(BESIDE[name], _KEPT, strict=False)
    return [first_digits(known[other], sizes[other], kept) for other, kept in pairs if other in sizes]


def encode_book(book: Book) -> bytes:
    count, width = book.words.shape
    table = torch.stack([book.low, book.step]).numpy().astype("<f4").tobytes()
    values = book.words.numpy().reshape(-1)
    return struct.pack("<I", count) + table + mixing_encode(values, _BYTE, *_columns(count, width))


def decode_book(data: bytes, width: int, most: int) -> Book:
    """What `encode_book` was given, of at most so many words; ValueError where the bytes cannot come from it."""
    if len(data) < 4 + 8 * width:
        raise ValueError("a codebook is cut short")
    (count,) = struct.unpack_from("<I", data)
    if count > min(most, LARGEST_BOOK):
        raise ValueError("a codebook has more words than labels")
    table = torch.from_numpy(np.frombuffer(data, "<f4", 2 * width, 4).astype(np.float32)).view(2, width)
    if not bool(torch.isfinite(table).all()) or bool((table.abs() > 1e6).any()):
        raise ValueError("a codebook has values out of range")
    words = mixing_decode(data[4 + 8 * width :], _BYTE, count * width, *_columns(count, width))
    return Book(words.to(torch.uint8).view(count, width), table[0], table[1])


def _columns(count: int, width: int) -> tuple[Integers, list[Integers]]:
    """Of bytes [count x width] the same columns of the words before, and the columns."""
    place = np.arange(count * width)
    return np.maximum(place[:, None] - width * np.arange(1, 4), -1), [place % width]


def encode_levels(levels: Tensor, most: int) -> bytes:
    """[K] numbers from 0 to `most` of the words of a codebook."""
    return mixing_encode(levels, most + 1)


def decode_levels(data: bytes, most: int, count: int) -> Tensor:
    """What `encode_levels` was given; ValueError where the bytes cannot come from it."""
    return mixing_decode(data, most + 1, count)
