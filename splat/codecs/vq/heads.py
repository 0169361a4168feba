"""Heads in the vq container: what they read in 256 levels a column, range-coded, and weights in half precision."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from splat.codecs.heads import Said
from splat.codecs.quantize import decode_indices, encode_indices
from splat.codecs.vq.scene import Book
from splat.core.heads import SavedHead

_LARGEST_HALF = 65504.0


def to_parts(said: list[Said], saved: Mapping[str, SavedHead], features: Tensor) -> list[bytes]:
    """A part for the [N, F] features, in the order of the file, and one for the weights of each head."""
    if not said:
        return []
    book = Book.of(features)
    labels = book.words.numpy()
    parts = [torch.stack([book.low, book.step]).numpy().astype("<f4").tobytes()]
    parts += [encode_indices(column, 256) for column in labels.T if len(labels)]
    packed = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    weights = (saved[head.name].weights.clamp(-_LARGEST_HALF, _LARGEST_HALF) for head in said)
    return [packed, *(values.numpy().astype("<f2").tobytes() for values in weights)]


def from_parts(
    part: Callable[[], bytes], said: list[Said], count: int
) -> tuple[dict[str, SavedHead], Tensor]:
    """The heads and [count, F] features of parts that `part` gives one by one; ValueError where they do not fit."""
    width = sum(head.width for head in said)
    pieces = _pieces(part())
    if len(pieces) != 1 + (width if count else 0) or len(pieces[0]) != 8 * width:
        raise ValueError("the features of the heads have another length")
    table = torch.from_numpy(np.frombuffer(pieces[0], "<f4").astype(np.float32)).view(2, width)
    if not bool(torch.isfinite(table).all()) or bool((table.abs() > 1e6).any()):
        raise ValueError("the features of the heads are out of range")
    columns = [decode_indices(piece, 256, count) for piece in pieces[1:]]
    words = torch.stack(columns, 1) if columns else torch.zeros(count, width, dtype=torch.int64)
    heads = {}
    for head in said:
        stored = part()
        if len(stored) != 2 * head.count:
            raise ValueError(f"the weights of the head {head.name} have another length")
        heads[head.name] = head.saved(torch.from_numpy(np.frombuffer(stored, "<f2").astype(np.float32)))
    return heads, Book(words.to(torch.uint8), table[0], table[1]).values()


def _pieces(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("the features of the heads are cut short")
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        if len(found[-1]) != length:
            raise ValueError("the features of the heads are cut short")
        at += 4 + length
    return found
