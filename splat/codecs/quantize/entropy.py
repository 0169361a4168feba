"""Entropy coding of indices and integers, to within rounding of the entropy.

Errors of decoding are ValueErrors, which a file's reader turns into its own message. Lengths are the
caller's to bound: indices that are all alike take no room, so that a few bytes may stand for any number.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat import _native

_BITS: int = _native.constants.RANS_BITS
_TOTAL = 1 << _BITS
_LARGEST_ALPHABET = 1 << 20
Integers = npt.NDArray[np.integer]


def range_encode(symbols: Tensor | Integers, counts: Tensor | Integers) -> bytes:
    """The symbols in (sum of -log2(counts[s] / total)) bits, plus at most 8 bytes.

    Args:
        symbols: [n] integers in [0, S).
        counts: [S] how often each occurs, or weights in proportion; those of symbols that occur are
            positive. The decoder needs the same.

    Raises:
        ValueError: a symbol outside the alphabet or of count 0, or counts that make no model.

    Source: range asymmetric numeral systems, Duda 2013, with frequencies of 24 bits.
    """
    values = _array(symbols)
    if len(values) == 0:
        return b""
    starts = _starts(counts)
    if int(values.min()) < 0 or int(values.max()) >= len(starts) - 1:
        raise ValueError(f"symbols lie outside 0 to {len(starts) - 2}")
    if bool((np.diff(starts)[np.unique(values)] == 0).any()):
        raise ValueError("a symbol occurs whose count is 0")
    return _native.rans_encode(np.ascontiguousarray(values, np.int32), starts)


def range_decode(data: bytes, counts: Tensor | Integers, n: int) -> Tensor:
    """[n] int64: what `range_encode` was given.

    Raises:
        ValueError: the bytes cannot come from `range_encode` with these counts and this length. Most damage
            is found so; the rest gives other symbols, each within the alphabet.
    """
    symbols = np.empty(n, np.int32)
    starts = _starts(counts) if n else np.zeros(2, np.uint32)
    if not _native.rans_decode(np.frombuffer(data, np.uint8), starts, symbols):
        raise ValueError("the coded indices are damaged")
    return torch.from_numpy(symbols).long()


def encode_integers(values: Tensor | Integers) -> bytes:
    """Integers of any sign, small ones short: classes of magnitude by `range_encode`, the rest as bits.

    Meant for counts, differences and other values that crowd around 0. Magnitudes below 2^62.
    """
    signed = _array(values).astype(np.int64)
    zigzag = (signed.astype(np.uint64) << np.uint64(1)) ^ (signed >> 63).astype(np.uint64)
    classes = _bit_lengths(zigzag)
    if len(classes) and int(classes.max()) > 63:
        raise ValueError("an integer of magnitude 2^62 or more")
    counts = np.bincount(classes, minlength=64)
    coded = range_encode(classes, counts)
    used = int(classes.max()) + 1 if len(classes) else 0
    head = struct.pack("<BI", used, len(coded)) + counts[:used].astype("<u4").tobytes()
    # The leading one of every value is known from its class.
    low = np.maximum(classes - 1, 0)
    return head + coded + _pack(zigzag, low)


def decode_integers(data: bytes, n: int) -> Tensor:
    """[n] int64: what `encode_integers` was given; ValueError where the bytes cannot come from it."""
    if len(data) < 5:
        raise ValueError("the coded integers are cut short")
    used, length = struct.unpack_from("<BI", data)
    begin = 5 + 4 * used
    if used > 64 or len(data) < begin + length:
        raise ValueError("the coded integers are cut short")
    counts = np.zeros(64, np.int64)
    counts[:used] = np.frombuffer(data, "<u4", used, 5)
    if int(counts.sum()) != n:
        raise ValueError(f"the coded integers are {int(counts.sum())}, not {n}")
    classes = range_decode(data[begin : begin + length], counts, n).numpy()
    low = np.maximum(classes - 1, 0)
    zigzag = _unpack(data[begin + length :], low)
    zigzag |= np.where(classes > 0, np.uint64(1) << low.astype(np.uint64), np.uint64(0))
    return torch.from_numpy(
        (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
    )


def encode_indices(labels: Tensor | Integers, size: int) -> bytes:
    """Indices into a codebook of `size` words with the model to decode them: `encode_integers` of the
    counts, then `range_encode`."""
    values = _array(labels)
    counts = np.bincount(values, minlength=size) if len(values) else np.zeros(size, np.int64)
    model = encode_integers(counts)
    return struct.pack("<I", len(model)) + model + range_encode(values, counts)


def decode_indices(data: bytes, size: int, n: int) -> Tensor:
    """[n] int64 in [0, size): what `encode_indices` was given; ValueError where the bytes cannot come from it."""
    if len(data) < 4:
        raise ValueError("the coded indices are cut short")
    (length,) = struct.unpack_from("<I", data)
    if len(data) < 4 + length:
        raise ValueError("the coded indices are cut short")
    counts = decode_integers(data[4 : 4 + length], size)
    if int(counts.min()) < 0 or int(counts.sum()) != n:
        raise ValueError("the coded indices are damaged")
    return range_decode(data[4 + length :], counts, n)


def _array(values: Tensor | Integers) -> Integers:
    flat = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise ValueError(f"expected integers [n], got {flat.dtype} {list(flat.shape)}")
    return flat


def _starts(counts: Tensor | Integers) -> npt.NDArray[np.uint32]:
    """[S + 1] running sums of frequencies in proportion to the counts, which sum to 2^24.

    Positive counts get at least 1; what that takes too much is taken from the largest, the first among
    equals. Integer arithmetic alone, so that every machine gets the same.
    """
    given = _array(counts).astype(np.int64)
    total = int(given.sum(dtype=object)) if len(given) else 0
    if not 0 < len(given) <= _LARGEST_ALPHABET or int(given.min()) < 0 or not 0 < total < 1 << 38:
        raise ValueError(
            f"counts: expected 1 to {_LARGEST_ALPHABET} numbers that are not negative, with a sum in (0, 2^38)"
        )
    shares = given * _TOTAL // total
    shares[(given > 0) & (shares == 0)] = 1
    excess = int(shares.sum()) - _TOTAL
    if excess <= 0:
        shares[int(given.argmax())] -= excess
    else:
        order = np.argsort(-shares, kind="stable")
        while excess > 0:
            for symbol in order:
                taken = min(excess, int(shares[symbol]) // 2)
                shares[symbol] -= taken
                excess -= taken
                if excess == 0:
                    break
    return np.concatenate([[0], shares.cumsum()]).astype(np.uint32)


def _bit_lengths(values: npt.NDArray[np.uint64]) -> Integers:
    """[n] int64: bits up to the highest that is set; 0 for 0."""
    lengths = np.zeros(len(values), np.int64)
    rest = values.copy()
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= np.uint64(1) << np.uint64(step)
        lengths[large] += step
        rest[large] >>= np.uint64(step)
    return lengths + (rest > 0)


def _pack(values: npt.NDArray[np.uint64], widths: Integers) -> bytes:
    """The lowest widths[i] bits of every value, lowest first, one after the other."""
    ends = widths.cumsum()
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    starts = ends - widths
    for bit in range(int(widths.max()) if len(widths) else 0):
        has = widths > bit
        bits[starts[has] + bit] = (values[has] >> np.uint64(bit)) & np.uint64(1)
    return np.packbits(bits, bitorder="little").tobytes()


def _unpack(data: bytes, widths: Integers) -> npt.NDArray[np.uint64]:
    """The values of `_pack`; ValueError unless the data has exactly as many bytes as they need."""
    ends = widths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    if len(data) != (total + 7) // 8:
        raise ValueError(f"the coded integers need {(total + 7) // 8} further bytes, there are {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    starts = ends - widths
    values = np.zeros(len(widths), np.uint64)
    for bit in range(int(widths.max()) if len(widths) else 0):
        has = widths > bit
        values[has] |= bits[starts[has] + bit].astype(np.uint64) << np.uint64(bit)
    return values
