"""A set of cells of a cube as bits: the order of the points is not kept, which saves log2(n!) of them.

The cube is halved along x, y, z, x, ... and for every part the number of its points in the lower half is
coded (Gandoin & Devillers 2002), with a model for each small number, learned from the points: where points
cluster, both of two lie in the same half more often than not. A point that is alone has nothing left but
its path, a bit a halving, which is written as it is.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from splat.codecs.quantize import decode_indices, encode_indices

LARGEST_DEPTH = 20
# Parts of at least so many points share a model of whether all, none or some of them lie in the lower half.
_MANY = 8
_Integers = npt.NDArray[np.int64]


def encode_cells(cells: _Integers, depth: int) -> tuple[bytes, _Integers]:
    """The bytes, and the order [N] of the points in which `decode_cells` gives them back.

    Args:
        cells: [N, 3] integers in [0, 2^depth).
    """
    codes = _interleave(cells, depth)
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    splits: dict[int, list[_Integers]] = {}
    large: list[_Integers] = []
    alone: list[npt.NDArray[np.bool_]] = []
    starts = np.zeros(min(1, len(codes)), np.int64)
    for bit in range(3 * depth - 1, -1, -1):
        ends = np.append(starts[1:], len(codes))
        upper = (codes >> bit) & 1 == 1
        # The points are in order, so that those of the lower half come first.
        sums = np.concatenate([[0], np.cumsum(upper)])
        counts = ends - starts
        lower = counts - (sums[ends] - sums[starts])
        alone.append(lower[counts == 1] == 0)
        for count in range(2, _MANY):
            splits.setdefault(count, []).append(lower[counts == count])
        many = counts >= _MANY
        large.append(np.stack([lower[many], counts[many]], 1))
        inner = (lower > 0) & (lower < counts)
        starts = np.sort(np.concatenate([starts, (starts + lower)[inner]]))
    parts = [np.packbits(np.concatenate([*alone, np.zeros(0, bool)]), bitorder="little").tobytes()]
    for count in range(2, _MANY):
        parts.append(_coded(np.concatenate(splits.get(count, [np.zeros(0, np.int64)])), count + 1))
    lower, counts = np.concatenate([*large, np.zeros((0, 2), np.int64)]).T
    kinds = np.where(lower == 0, 0, np.where(lower == counts, 1, 2))
    some = kinds == 2
    parts += [_coded(kinds, 3), pack(lower[some] - 1, _widths(counts[some] - 1))]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts), order


def encode_mixed(cells: _Integers, depth: _Integers, base: int) -> tuple[int, bytes, _Integers]:
    """Cells of several depths, coded at one of them: the bits of all, the bytes of `encode_cells`, and the order.

    Cells of larger depth have their further bits written as they are, which `bytes` does not hold; cells of smaller
    depth are coded as the first of the finer cells in them.

    Args:
        cells: [N, 3], each at its own depth.
        depth: [N].
    """
    coded, order = encode_cells(at_depth(cells, depth, base), base)
    return 8 * len(coded) + 3 * int(np.maximum(depth - base, 0).sum()), coded, order


def at_depth(cells: _Integers, depth: _Integers, base: int) -> _Integers:
    """[N, 3] the cells of that depth around each, or the first of those in it; each is given at its own depth [N]."""
    shift = (depth - base)[:, None]
    return np.where(shift >= 0, cells >> np.maximum(shift, 0), cells << np.maximum(-shift, 0))


def decode_cells(data: bytes, depth: int, n: int) -> _Integers:
    """[N, 3] cells in the order that `encode_cells` gave.

    Raises:
        ValueError: the bytes cannot come from `encode_cells` with this depth and number.
    """
    parts = _parts(data, _MANY + 1)
    alone = _Stream(np.unpackbits(np.frombuffer(parts[0], np.uint8), bitorder="little").astype(np.int64))
    splits = {
        count: _Stream(_decoded(parts[count - 1], count + 1, 3 * depth * (n // count)))
        for count in range(2, _MANY)
    }
    kinds = _Stream(_decoded(parts[_MANY - 1], 3, 3 * depth * (n // _MANY)))
    evenly = _Bits(parts[_MANY])
    starts = np.zeros(min(1, n), np.int64)
    codes = np.zeros(len(starts), np.int64)
    for _ in range(3 * depth):
        counts = np.append(starts[1:], n) - starts
        lower = np.zeros_like(counts)
        single = counts == 1
        lower[single] = 1 - alone.take(int(single.sum()))
        for count in np.unique(counts[(counts > 1) & (counts < _MANY)]).tolist():
            lower[counts == count] = splits[count].take(int((counts == count).sum()))
        many = np.flatnonzero(counts >= _MANY)
        kind = kinds.take(len(many))
        lower[many[kind == 1]] = counts[many[kind == 1]]
        some = many[kind == 2]
        lower[some] = 1 + evenly.take(counts[some] - 1)
        if bool((lower > counts).any()):
            raise ValueError("the positions are damaged")
        inner = (lower > 0) & (lower < counts)
        below = codes << 1
        starts = np.concatenate([starts, (starts + lower)[inner]])
        codes = np.concatenate([below + (lower == 0), below[inner] + 1])
        order = np.argsort(starts, kind="stable")
        starts, codes = starts[order], codes[order]
    counts = np.append(starts[1:], n) - starts
    return _deinterleave(np.repeat(codes, counts), depth)


class _Stream:
    """Decoded symbols, taken from the front."""

    def __init__(self, values: _Integers) -> None:
        self._values = values
        self._at = 0

    def take(self, n: int) -> _Integers:
        if self._at + n > len(self._values):
            raise ValueError("the positions are cut short")
        self._at += n
        return self._values[self._at - n : self._at]


class _Bits:
    """Integers below given bounds, each in as many bits as its bound needs."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        self._at = 0

    def take(self, bounds: _Integers) -> _Integers:
        widths = _widths(bounds)
        total = int(widths.sum())
        if self._at + total > len(self._bits):
            raise ValueError("the positions are cut short")
        values = _gather(self._bits[self._at : self._at + total], widths)
        self._at += total
        if bool((values >= bounds).any()):
            raise ValueError("the positions are damaged")
        return values


def pack(values: _Integers, widths: _Integers) -> bytes:
    """The lowest widths[i] bits of every value, lowest first, one after the other."""
    ends = widths.cumsum()
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for bit in range(int(widths.max(initial=0))):
        has = widths > bit
        bits[(ends - widths)[has] + bit] = (values[has] >> bit) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(data: bytes, widths: _Integers) -> _Integers:
    """The values of `pack`; ValueError unless the data has exactly as many bytes as they need."""
    total = int(widths.sum())
    if len(data) != (total + 7) // 8:
        raise ValueError("the positions are cut short")
    return _gather(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little"), widths)


def _gather(bits: npt.NDArray[np.uint8], widths: _Integers) -> _Integers:
    starts = widths.cumsum() - widths
    values = np.zeros(len(widths), np.int64)
    for bit in range(int(widths.max(initial=0))):
        has = widths > bit
        values[has] |= bits[starts[has] + bit].astype(np.int64) << bit
    return values


def _coded(symbols: _Integers, size: int) -> bytes:
    return struct.pack("<I", len(symbols)) + encode_indices(symbols, size) if len(symbols) else b""


def _decoded(data: bytes, size: int, most: int) -> _Integers:
    """The symbols of `_coded`, of which there cannot be more than `most`."""
    if not data:
        return np.zeros(0, np.int64)
    if len(data) < 4:
        raise ValueError("the positions are cut short")
    (count,) = struct.unpack_from("<I", data)
    if count > most:
        raise ValueError("the positions are damaged")
    return decode_indices(data[4:], size, count).numpy()


def _widths(bounds: _Integers) -> _Integers:
    """[n] bits of the numbers below each bound."""
    return np.ceil(np.log2(np.maximum(bounds, 1))).astype(np.int64)


def _parts(data: bytes, count: int) -> list[bytes]:
    """`count` byte strings, each after its length."""
    parts, at = [], 0
    for _ in range(count):
        if at + 4 > len(data):
            raise ValueError("the positions are cut short")
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            raise ValueError("the positions are cut short")
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(data):
        raise ValueError("bytes follow the positions")
    return parts


def _interleave(cells: _Integers, depth: int) -> _Integers:
    """[N] places along the Morton curve; x in the highest bit of each three."""
    codes = np.zeros(len(cells), np.int64)
    for bit in range(depth):
        for axis in range(3):
            codes |= ((cells[:, axis] >> bit) & 1) << (3 * bit + 2 - axis)
    return codes


def _deinterleave(codes: _Integers, depth: int) -> _Integers:
    cells = np.zeros((len(codes), 3), np.int64)
    for bit in range(depth):
        for axis in range(3):
            cells[:, axis] |= ((codes >> (3 * bit + 2 - axis)) & 1) << bit
    return cells
