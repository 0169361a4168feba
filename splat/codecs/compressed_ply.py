"""PlayCanvas' compressed .ply: 16 bytes a Gaussian and a byte for each harmonic.

Gaussians go in chunks of 256. `element chunk` has the least and the largest position, log scale and colour of each
(older files leave the colours out, which are then in [0, 1]); `element vertex` has four uint32:
position 11-10-11 bits and scale 11-10-11 bits between those bounds, rotation as the number of the largest component
and the three others in 10 bits each, colour and opacity 8888. `element sh` has f_rest as bytes: b stands for
(b + 0.5) / 32 - 4, and 0 and 255 for -4 and 4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from splat.codecs import columns, ply_header, tables
from splat.codecs.format import Decoded, Format, Metadata, NoOptions, by_scene
from splat.codecs.ply_header import Element, Header
from splat.codecs.quantize.order import morton_order
from splat.codecs.smallest_three import quat_error, split_largest
from splat.core import DataError, Gaussians, sh
from splat.core.files import replacing

_CHUNK = 256
_AXES = ("x", "y", "z")
_BOUNDS = (
    *(f"{end}_{axis}" for end in ("min", "max") for axis in _AXES),
    *(f"{end}_scale_{axis}" for end in ("min", "max") for axis in _AXES),
)
_COLOR_BOUNDS = tuple(f"{end}_{channel}" for end in ("min", "max") for channel in "rgb")
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_BITS = (11, 10, 11)  # of a centre and of a scale
_REST = {0: 0, 9: 1, 24: 2, 45: 3}

# What the other writers clamp logarithms of scales to, so that one of a degenerate Gaussian does not coarsen the
# other 255 of its chunk.
_SCALE_LIMIT = 20.0
_SH_STEP, _SH_LIMIT = 1 / 32, 4.0

_level = np.arange(256, dtype=np.float64)
_HARMONICS = ((_level + 0.5) * _SH_STEP - _SH_LIMIT).astype(np.float32)
_HARMONICS[0], _HARMONICS[255] = -_SH_LIMIT, _SH_LIMIT
# What ten bits of a component of a rotation stand for.
_THREE = ((np.arange(1024) / 1023 - 0.5) * math.sqrt(2)).astype(np.float32)


def read(path: Path) -> Decoded:
    with open(path, "rb") as file:
        header = ply_header.read_header(path, file)
        if header.order != "<":
            raise DataError(f"{path}: damaged: a compressed PLY is little-endian")
        size = os.fstat(file.fileno()).st_size
        vertex = _element(path, header, "vertex", _PACKED, "u4", size)
        count = vertex[0].count
        colored = any("min_r" in element.names for element in header.elements if element.name == "chunk")
        bounds = _element(path, header, "chunk", _BOUNDS + _COLOR_BOUNDS * colored, "f4", size)
        if bounds[0].count != math.ceil(count / _CHUNK):
            raise DataError(
                f"{path}: damaged: {bounds[0].count} chunks for {count} Gaussians; one holds {_CHUNK}"
            )
        harmonics = next((element for element in header.elements if element.name == "sh"), None)
        rest = [] if harmonics is None else [f"f_rest_{i}" for i in range(len(harmonics.properties))]
        if len(rest) not in _REST:
            raise DataError(f"{path}: damaged: {len(rest)} harmonics; SH degrees 0 to 3 have 0, 9, 24 or 45")

        packed = _rows(file, *vertex)
        chunks = _rows(file, *bounds)
        color = columns.empty(count, sh.coefficients(_REST[len(rest)]), 3)
        if rest:
            stored = _element(path, header, "sh", tuple(rest), "u1", size)
            if stored[0].count != count:
                raise DataError(
                    f"{path}: damaged: harmonics of {stored[0].count} Gaussians, there are {count}"
                )
            _read_harmonics(_rows(file, *stored), stored[0], color)
    # Colours in [0, 1] as band 0: between bounds that are moved so themselves.
    shades = _bounds(chunks, "", "rgb") if colored else (np.zeros((1, 3)), np.ones((1, 3)))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # the check of the values finds what comes of absurd ones
        darkest, brightest = (((bound - 0.5) / sh.C0).astype(np.float32) for bound in shades)
    columns.unpack_fields(packed["packed_color"], 8, (8, 8, 8), (darkest, brightest), color[:, 0])
    means, log_scales = columns.empty(count, 3), columns.empty(count, 3)
    columns.unpack_fields(packed["packed_position"], 0, _BITS, _bounds(chunks, "", _AXES), means)
    columns.unpack_fields(packed["packed_scale"], 0, _BITS, _bounds(chunks, "scale_", _AXES), log_scales)
    meant = ply_header.meaning(header.comments)
    gaussians = Gaussians(
        means=means,
        quats=columns.unpack_largest(packed["packed_rotation"], _THREE, (0, 1, 2, 3), (1, 1, 1, 1)),
        log_scales=log_scales,
        logit_opacities=torch.from_numpy(tables.LOGITS[packed["packed_color"] & np.uint32(255)]),
        sh=color,
        antialiased=meant.pop("mode", None) == "mip",
    )
    version = "2" if colored else "1"
    return Decoded(gaussians, {"version": version, "comments": header.comments, **meant})


def _element(
    path: Path, header: Header, name: str, wanted: tuple[str, ...], kind: str, size: int
) -> tuple[Element, int]:
    """The element and where its rows begin; DataError unless it has the properties of that type and is whole."""
    found = header.find(path, name)
    if found is None:
        raise DataError(f"{path}: damaged: the header of the compressed PLY declares no element {name!r}")
    element, start = found
    kinds = dict(element.properties)
    wrong = [part for part in wanted if kinds.get(part) != kind]
    if wrong or element.has_lists:
        raise DataError(
            f"{path}: damaged: the element {name!r} of the compressed PLY lacks {', '.join(wrong[:4])}"
        )
    if start + element.count * element.row_bytes > size:
        raise DataError(
            f"{path}: cut short: the header declares {element.count} rows of {name!r}, "
            f"the file has {max(0, size - start) // element.row_bytes}; copy or download it again"
        )
    return element, start


def _rows(file: BinaryIO, element: Element, start: int) -> np.ndarray:
    dtype = np.dtype([(name, "<" + kind) for name, kind in element.properties])
    return columns.read_bytes(file, start, element.count * dtype.itemsize).view(dtype)


def _bounds(chunks: np.ndarray, what: str, axes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest of each chunk, [N / 256, 3] float32."""
    low, high = (np.stack([chunks[f"{end}_{what}{axis}"] for axis in axes], 1) for end in ("min", "max"))
    return low, high


def _read_harmonics(rows: np.ndarray, element: Element, out: Tensor) -> None:
    """Fills bands 1 ... of `out` [N, K, 3]."""
    stored = len(element.properties) // 3
    names = [name for name, _ in element.properties]
    target = [0] * len(names)
    for channel in range(3):
        for k in range(stored):
            target[names.index(f"f_rest_{channel * stored + k}")] = 3 * (1 + k) + channel
    flat = rows.view(np.uint8).reshape(len(rows), len(names))
    columns.expand_bytes(flat, _HARMONICS, out.flatten(1), target)


def order(gaussians: Gaussians) -> Tensor:
    """[N] int64: along the Morton curve, so that the Gaussians of a chunk are neighbours."""
    return morton_order(gaussians.means)


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: NoOptions) -> list[str]:
    count, stored = len(gaussians), 3 * (gaussians.sh.shape[1] - 1)
    rows = order(gaussians)
    chunks, packed = _pack(gaussians, rows.numpy())
    lines = ["ply", "format binary_little_endian 1.0", *ply_header.comment_lines(gaussians, metadata)]
    lines += [f"element chunk {len(chunks)}", *(f"property float {name}" for name in _BOUNDS + _COLOR_BOUNDS)]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in _PACKED)]
    if stored:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{i}" for i in range(stored))]
    with replacing(path) as file:
        file.write("\n".join([*lines, "end_header", ""]).encode("ascii", "replace"))
        file.write(chunks.tobytes())
        file.write(packed.tobytes())
        if stored:
            source = [3 * (1 + k) + channel for channel in range(3) for k in range(stored // 3)]
            # Rounding down is right here: a byte stands for the middle of its step.
            gain, bias = 1 / _SH_STEP, _SH_LIMIT / _SH_STEP - 0.5
            flat = gaussians.sh.flatten(1)
            file.write(columns.pack_bytes(flat, gain, bias, source=source, order=rows.numpy()).data.cast("B"))
    return _clamped(gaussians)


def _pack(gaussians: Gaussians, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chunks [N / 256, 18] float32 and the packed Gaussians [N, 4] uint32, in the order of `rows`."""
    count = len(rows)
    scales = gaussians.log_scales.numpy().clip(-_SCALE_LIMIT, _SCALE_LIMIT)
    colors = gaussians.sh[:, 0].numpy() * np.float32(sh.C0) + np.float32(0.5)
    bounds, shares = [], []
    for values in (gaussians.means.numpy(), scales, colors):
        low, high, share = _chunk_shares(values, rows)
        bounds += [low, high]
        shares.append(share)
    packed = np.empty((count, 4), "<u4")
    packed[:, 0] = _pack_bits(shares[0], _BITS)
    packed[:, 1] = _pack_quats(gaussians.quats.numpy()[rows])
    packed[:, 2] = _pack_bits(shares[1], _BITS)
    opacity = torch.sigmoid(gaussians.logit_opacities).numpy()[rows]
    packed[:, 3] = _pack_bits(np.concatenate([shares[2], opacity[None]]), (8, 8, 8, 8))
    return np.concatenate(bounds, 1).astype("<f4", copy=False), packed


def _chunk_shares(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and largest of each chunk [N / 256, 3], and where between them each of `values` [N, 3] lies: [3, N], in the
    order of `rows`."""
    count, chunks = len(rows), math.ceil(len(rows) / _CHUNK)
    # A column at a time, and the last chunk filled up with its last value.
    filled = np.empty((3, chunks * _CHUNK), np.float32)
    for column in range(3 * bool(count)):
        filled[column, :count] = values[:, column][rows]
        filled[column, count:] = filled[column, count - 1]
    blocks = filled.reshape(3, chunks, _CHUNK)
    low, high = blocks.min(2, initial=np.inf), blocks.max(2, initial=-np.inf)
    extent = high.astype(np.float64) - low
    # Two far apart may differ by more than float32 holds.
    wide = bool((extent > np.finfo(np.float32).max).any())
    extent = np.where(extent > 0, extent, 1).astype(np.float64 if wide else np.float32)
    shares = (blocks - low[..., None].astype(extent.dtype)) / extent[..., None]
    share = shares.reshape(3, -1)[:, :count].astype(np.float32, copy=False)
    return np.ascontiguousarray(low.T), np.ascontiguousarray(high.T), share


def _pack_bits(shares: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """[N] uint32 of numbers in [0, 1] [columns, N], the first in the highest bits."""
    packed = np.zeros(shares.shape[1], np.uint32)
    for share, width in zip(shares, bits, strict=True):
        level = (share * np.float32((1 << width) - 1) + np.float32(0.5)).astype(np.uint32)
        packed = packed << np.uint32(width) | level
    return packed


def _pack_quats(quats: np.ndarray) -> np.ndarray:
    three, place = split_largest(quats)
    levels = three * np.float32(math.sqrt(0.5)) + np.float32(0.5)
    return place.astype(np.uint32) << np.uint32(30) | _pack_bits(levels.T, (10, 10, 10))


def _clamped(gaussians: Gaussians) -> list[str]:
    notes = []
    far = int((np.abs(gaussians.log_scales.numpy()) > _SCALE_LIMIT).sum())
    if far:
        notes.append(f"scales beyond exp(+-{_SCALE_LIMIT:g}), which were clamped: {far}")
    rest = gaussians.sh[:, 1:].numpy()
    wide = int((np.abs(rest) > _SH_LIMIT).sum()) if tables.beyond(rest, -_SH_LIMIT, _SH_LIMIT) else 0
    if wide:
        notes.append(f"harmonics beyond +-{_SH_LIMIT:g}, which were clamped: {wide}")
    return notes


def max_error(gaussians: Gaussians, options: NoOptions) -> dict[str, float]:
    """Half a step of the widest chunk, and what clamping does."""
    if len(gaussians) == 0:
        return dict.fromkeys(("means", "quats", "log_scales", "opacities", "sh0", "shN"), 0.0)
    rows = order(gaussians).numpy()
    scales = gaussians.log_scales.numpy().astype(np.float64)

    def widest(values: np.ndarray) -> np.ndarray:
        values = values[rows].astype(np.float64)
        firsts = np.arange(0, len(values), _CHUNK)
        return (np.maximum.reduceat(values, firsts) - np.minimum.reduceat(values, firsts)).max(0)

    steps = np.array([2047, 1023, 2047])
    rest = gaussians.sh[:, 1:].numpy()
    means, limit = gaussians.means.numpy(), _SCALE_LIMIT
    return {
        # Rounding of float32 arithmetic, some units in the last place of the largest operand, comes on top.
        "means": float((widest(means) / steps).max()) / 2 + 1e-6 * float(np.abs(means).max()),
        "quats": quat_error(math.sqrt(2) / 1023 / 2),
        "log_scales": float((widest(scales.clip(-limit, limit)) / steps).max()) / 2
        + tables.beyond(scales, -limit, limit)
        + 1e-5,
        "opacities": tables.OPACITY_ERROR + 1e-6,
        "sh0": float(widest(gaussians.sh[:, 0].numpy()).max()) / 255 / 2 + 1e-5,
        # Half a step; a whole one in the first and the last, which stand for the limits.
        "shN": _SH_STEP / 2 * (1.0 + bool(tables.beyond(rest, -_SH_LIMIT + _SH_STEP, _SH_LIMIT - _SH_STEP)))
        + tables.beyond(rest, -_SH_LIMIT, _SH_LIMIT)
        + 1e-6,
    }


def sniff(path: Path, head: bytes) -> bool:
    """A PLY whose header has the packed properties; where it is longer than the head, the file is asked."""
    if not head.startswith(b"ply"):
        return False
    if b"end_header" in head:
        return b"packed_position" in head[: head.index(b"end_header")]
    with open(path, "rb") as file:
        text = file.read(ply_header.LONGEST)
    return b"packed_position" in text[: text.find(b"end_header")]


FORMAT = Format(
    "compressed PLY",
    (".compressed.ply",),
    sniff,
    read,
    write,
    max_error=max_error,
    order=by_scene(order),
    parts=ply_header.parts,
    holds=frozenset({"antialiased", "offset", "up_axis"}),
)
