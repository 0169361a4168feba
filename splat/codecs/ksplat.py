"""The .ksplat v0.1 of mkkellogg's viewer, read in all levels and written.

A header of 4096 bytes, one of 1024 for each section, then the sections: the lengths of buckets that are not full
(uint32), the buckets' centres (3 float32), the Gaussians. Level 0 has everything in float32; in levels 1 and 2
centres are uint16, 32767 at the bucket's centre, and scales and rotations float16. Colours are 4 bytes; the
harmonics, degrees 0 to 2 (some readers: 3), go band by band and in each channel by channel, as float32, float16 or
bytes between two bounds of the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.codecs import columns, tables
from splat.codecs.bounded import require
from splat.codecs.format import Decoded, Format, Metadata, by_scene
from splat.core import DataError, Gaussians, UsageError, sh
from splat.core.files import replacing

_HEADER, _SECTION = 4096, 1024
_HALF_RANGE = 32767
_BUCKET, _BLOCK = 256, 5.0
# The level's centre, scale, rotation and harmonics.
_TYPES = (("<f4", "<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2", "<f2"), ("<u2", "<f2", "<f2", "u1"))
_FIRST = np.dtype(
    {
        "names": ["major", "minor", "sections", "filled", "room", "count", "level", "low", "high"],
        "formats": ["u1", "u1", "<u4", "<u4", "<u4", "<u4", "<u2", "<f4", "<f4"],
        "offsets": [0, 1, 4, 8, 12, 16, 20, 36, 40],
        "itemsize": _HEADER,
    }
)
_PART = np.dtype(
    {
        "names": [
            "count",
            "room",
            "bucket",
            "buckets",
            "block",
            "bucket_bytes",
            "range",
            "bytes",
            "full",
            "partial",
            "degree",
        ],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<f4", "<u2", "<u4", "<u4", "<u4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40],
        "itemsize": _SECTION,
    }
)


@dataclass(frozen=True)
class KsplatOptions:
    """The .ksplat."""

    level: int = 1
    """0: all in float32; 1: centres in 16 bits, the rest in half floats; 2: harmonics in 8 bits, too."""

    def __post_init__(self) -> None:
        if self.level not in (0, 1, 2):
            raise UsageError(f"ksplat: level must be 0, 1 or 2, got {self.level}")


def _row(level: int, degree: int) -> np.dtype:
    center, scale, quat, harmonic = _TYPES[level]
    fields = [("mean", center, 3), ("scale", scale, 3), ("quat", quat, 4), ("color", "u1", 4)]
    return np.dtype([*fields, ("sh", harmonic, 3 * (sh.coefficients(degree) - 1))])


def read(path: Path) -> Decoded:
    data = columns.load(path)
    require(path, "the header", _HEADER, len(data))
    head = data[:_HEADER].view(_FIRST)[0]
    if (head["major"], head["minor"]) != (0, 1):
        raise DataError(f"{path}: .ksplat of version {head['major']}.{head['minor']}; only 0.1 can be read")
    level, count = int(head["level"]), int(head["count"])
    if level >= len(_TYPES):
        raise DataError(f"{path}: damaged: compression level {level}; there are 0, 1 and 2")
    at = _HEADER + _SECTION * int(head["sections"])
    require(path, "the section headers", at, len(data))
    sections = data[_HEADER:at].view(_PART)
    if int(sections["count"].astype(np.int64).sum()) != count:
        raise DataError(
            f"{path}: damaged: the header declares {count} Gaussians, the sections have another number"
        )
    bounds = float(head["low"]) or -1.5, float(head["high"]) or 1.5
    found = []
    degree = max((int(section["degree"]) for section in sections if section["count"]), default=0)
    if degree > sh.MAX_DEGREE:
        raise DataError(f"{path}: damaged: harmonics of degree {degree}")
    for section in sections:
        scene, at = _read_section(path, data, at, section, level, degree, bounds)
        found.append(scene)
    if not found:
        raise DataError(f"{path}: damaged: it has no sections")
    notes = ["a .ksplat has no antialiasing flag: taken as classic"]
    scene = found[0] if len(found) == 1 else Gaussians.cat(found)
    return Decoded(scene, {"version": "0.1", "level": level, "comments": []}, notes)


def _read_section(
    path: Path,
    data: np.ndarray,
    at: int,
    section: np.void,
    level: int,
    degree: int,
    bounds: tuple[float, float],
) -> tuple[Gaussians, int]:
    """One section that begins at byte `at`, and where the next begins."""
    count, room, own = int(section["count"]), int(section["room"]), int(section["degree"])
    buckets, width, partial = int(section["buckets"]), int(section["bucket_bytes"]), int(section["partial"])
    if own > degree or room < count or (buckets and width < 12):
        raise DataError(f"{path}: damaged: a section header contradicts itself")
    row = _row(level, own)
    first = at + 4 * partial + buckets * width
    end = first + room * row.itemsize
    require(path, "the sections", end, len(data))
    rows = _Rows(data[first : first + count * row.itemsize].reshape(count, row.itemsize), row)
    means = rows.column("mean", 3)
    if level > 0:
        lengths = data[at : at + 4 * partial].view("<u4").astype(np.int64)
        centers = data[at + 4 * partial : first].reshape(buckets, width)[:, :12].copy().view("<f4")
        own_range = int(section["range"]) or _HALF_RANGE
        step = np.float32(float(section["block"]) / 2 / own_range)
        sizes = _sizes(path, count, int(section["full"]), int(section["bucket"]), lengths, buckets)
        with np.errstate(over="ignore", invalid="ignore"):
            offsets = means.numpy()
            offsets -= np.float32(own_range)
            offsets *= step
            offsets += centers[: len(sizes)].repeat(sizes, axis=0)
    color = columns.empty(count, sh.coefficients(degree), 3)
    paint = rows.bytes("color")
    columns.expand_bytes(paint[:, :3], tables.BAND0, color[:, 0])
    color[:, sh.coefficients(own) :] = 0
    if own:
        _read_harmonics(rows, own, color.flatten(1)[:, 3:], bounds if level == 2 else None)
    scene = Gaussians(
        means=means,
        quats=rows.column("quat", 4),
        log_scales=torch.from_numpy(tables.from_lengths(path, rows.column("scale", 3).numpy())),
        logit_opacities=torch.from_numpy(tables.LOGITS[paint[:, 3]]),
        sh=color,
    )
    return scene, end


@dataclass
class _Rows:
    """Gaussians as they are stored.

    Attributes:
        data: [N, B] uint8.
        row: what the bytes of a row are.
    """

    data: np.ndarray
    row: np.dtype

    def bytes(self, name: str) -> np.ndarray:
        """[N, width] uint8 of one field."""
        kind, start = self._place(name)
        return self.data[:, start : start + kind.itemsize]

    def gather(self, name: str, source: Sequence[int], out: Tensor) -> None:
        """out[:, c] = the value number source[c] of one field."""
        kind, start = self._place(name)
        size = kind.base.itemsize
        columns.gather(self.data, kind.base.str, [start + size * value for value in source], out)

    def column(self, name: str, width: int) -> Tensor:
        """[N, width] float32 of one field."""
        out = columns.empty(len(self.data), width)
        self.gather(name, range(width), out)
        return out

    def _place(self, name: str) -> tuple[np.dtype, int]:
        assert self.row.fields is not None
        kind, start, *_ = self.row.fields[name]
        return kind, start


def _read_harmonics(rows: _Rows, degree: int, out: Tensor, bounds: tuple[float, float] | None) -> None:
    """Fills the columns of `out` up to `degree`; `bounds` of the values where they are bytes."""
    # Stored channel by channel within each band; here all channels of a function follow each other.
    source = [
        3 * (band * band - 1) + channel * (2 * band + 1) + function
        for band in range(1, degree + 1)
        for function in range(2 * band + 1)
        for channel in range(3)
    ]
    out = out[:, : len(source)]
    if bounds is None:
        rows.gather("sh", source, out)
        return
    low, high = bounds
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.arange(256, dtype=np.float32) / np.float32(255)
        levels = np.float32(low) + share * np.float32(high - low)
    target = [0] * len(source)
    for column, value in enumerate(source):
        target[value] = column
    columns.expand_bytes(rows.bytes("sh"), levels, out, target)


def _sizes(path: Path, count: int, full: int, size: int, lengths: np.ndarray, buckets: int) -> np.ndarray:
    """How many of the `count` Gaussians each bucket has: `full` ones of `size`, then those with `lengths`."""
    ends = np.concatenate([size * np.arange(1, min(full, count) + 1), size * full + np.cumsum(lengths)])
    ends = ends[: np.searchsorted(ends, count) + 1 if count else 0].clip(max=count)  # those that are needed
    short = len(ends) > buckets or (count and (len(ends) == 0 or ends[-1] < count))
    if size == 0 or full > buckets or short:
        raise DataError(f"{path}: damaged: the buckets hold fewer Gaussians than their section")
    return np.diff(ends, prepend=0)


@dataclass
class _Buckets:
    """Gaussians grouped by blocks of space.

    Attributes:
        order: [N] rows in the order of the buckets: full ones first.
        of: [N] the bucket of each row, in that order.
        centers: [B, 3] float32.
        lengths: of the buckets that are not full, in order.
        full: number of full buckets.
        block: edge of a block, world units.
    """

    order: np.ndarray
    of: np.ndarray
    centers: np.ndarray
    lengths: np.ndarray
    full: int
    block: float


def _group(gaussians: Gaussians) -> _Buckets:
    means = gaussians.means.numpy().astype(np.float64)
    count = len(means)
    if count == 0:
        empty = np.zeros(0, np.int64)
        return _Buckets(empty, empty, np.zeros((0, 3), np.float32), empty, 0, _BLOCK)
    # The peers' 5 units, or less: 16 steps in the scale of the median Gaussian.
    median = float(np.exp(np.median(gaussians.log_scales.numpy()).clip(-20, 20)))
    block = float(np.float32(min(_BLOCK, 2 * _HALF_RANGE / 16 * median)))
    low = means.min(0)
    cells = np.floor((means - low) / block).astype(np.int64)
    sizes = [int(size) for size in cells.max(0) + 1]
    if sizes[0] * sizes[1] * sizes[2] < 1 << 62:
        cells_in_a_row = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]  # ten times as fast
        _, cell = np.unique(cells_in_a_row, return_inverse=True)
    else:
        _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    by_cell = np.argsort(cell, kind="stable")
    members = np.bincount(cell)
    rank = np.arange(count) - np.repeat(np.cumsum(members) - members, members)  # within the cell
    sorted_cell = cell[by_cell]
    is_full = rank // _BUCKET < (members // _BUCKET)[sorted_cell]
    key = np.lexsort((rank, sorted_cell, ~is_full))
    order, whole = by_cell[key], int(is_full.sum())
    lengths = members % _BUCKET
    lengths = lengths[lengths > 0]
    of = np.concatenate(
        [np.arange(whole) // _BUCKET, whole // _BUCKET + np.repeat(np.arange(len(lengths)), lengths)]
    )
    first = np.searchsorted(of, np.arange(whole // _BUCKET + len(lengths)))
    centers = (low + (cells[order[first]] + 0.5) * block).astype(np.float32)
    return _Buckets(order, of, centers, lengths, whole // _BUCKET, block)


def order(gaussians: Gaussians) -> Tensor:
    """[N] int64: by bucket, the full ones first."""
    return torch.from_numpy(_group(gaussians).order)


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: KsplatOptions) -> list[str]:
    level, degree = options.level, min(2, gaussians.sh_degree)
    grouped = _group(gaussians)
    index, count = grouped.order, len(gaussians)
    rows = np.empty(count, _row(level, degree))
    means = gaussians.means.numpy()[index]
    if level == 0:
        rows["mean"] = means
    else:
        offsets = means.astype(np.float64) - grouped.centers[grouped.of]
        levels = np.rint(offsets / (grouped.block / 2) * _HALF_RANGE) + _HALF_RANGE
        rows["mean"] = levels.clip(0, 2 * _HALF_RANGE + 1)
    scales = tables.to_lengths(gaussians.log_scales.numpy()[index])
    rows["scale"] = scales if level == 0 else scales.clip(*_HALF_LENGTHS)
    rows["quat"] = torch.nn.functional.normalize(gaussians.quats.double(), dim=1).numpy()[index]
    alpha = torch.sigmoid(gaussians.logit_opacities)[:, None]
    rows["color"][:, :3] = columns.pack_bytes(
        gaussians.sh[:, 0], tables.BAND0_GAIN, tables.BAND0_BIAS, order=index
    )
    rows["color"][:, 3:] = columns.pack_bytes(alpha, 255, 0, order=index)
    limit = _sh_limit(gaussians)
    rest = gaussians.sh[:, 1 : sh.coefficients(degree)].numpy()[index]
    for band in range(1, degree + 1):
        begin, wide = band * band - 1, 2 * band + 1
        part = rest[:, begin : begin + wide].transpose(0, 2, 1).reshape(count, 3 * wide)
        if level == 2:
            part = np.rint((part.astype(np.float64) + limit) / (2 * limit) * 255).clip(0, 255)
        rows["sh"][:, 3 * begin : 3 * (begin + wide)] = part.clip(-_HALF_LARGEST, _HALF_LARGEST)
    head, section = np.zeros(1, _FIRST), np.zeros(1, _PART)
    buckets, lengths = (
        (grouped.centers.tobytes(), grouped.lengths.astype("<u4").tobytes()) if level else (b"", b"")
    )
    head["minor"], head["sections"], head["count"], head["level"] = 1, 1, count, level
    head["low"], head["high"], head["filled"], head["room"] = -limit, limit, 1, count
    section["count"] = section["room"] = count
    section["degree"], section["bytes"] = degree, len(buckets) + len(lengths) + rows.nbytes
    if level:
        section["bucket"], section["buckets"], section["bucket_bytes"] = _BUCKET, len(grouped.centers), 12
        section["block"], section["range"] = grouped.block, _HALF_RANGE
        section["full"], section["partial"] = grouped.full, len(grouped.lengths)
    with replacing(path) as file:
        for content in (head.tobytes(), section.tobytes(), lengths, buckets, rows.tobytes()):
            file.write(content)
    return tables.clamping(gaussians)


# Half floats: the largest, the least whose precision is whole, and the least of all.
_HALF_LARGEST, _HALF_NORMAL, _HALF_LEAST = 65504.0, 2.0**-14, 2.0**-24
_HALF_LENGTHS = (_HALF_LEAST, _HALF_LARGEST)


def _sh_limit(gaussians: Gaussians) -> float:
    """Bound of the harmonics in bytes; readers take 0 for "not given"."""
    rest = gaussians.sh[:, 1:9].abs()
    return float(np.float32(rest.max())) or 1.5 if rest.numel() else 1.5


def _half_error(values: np.ndarray) -> float:
    """What rounding `values` to half floats changes at most: half a unit in the last of 11 bits."""
    return max(float(np.abs(values).max(initial=0.0)) * 2.0**-11, _HALF_LEAST / 2)


def max_error(gaussians: Gaussians, options: KsplatOptions) -> dict[str, float]:
    """The bits of each value, and what clamping does."""
    rest = gaussians.sh[:, 1:9].numpy()
    found = {
        "means": 0.0,
        "quats": 1e-6,
        "log_scales": tables.log_error(gaussians),
        "opacities": tables.OPACITY_ERROR + 1e-6,
        "sh0": tables.band0_error(gaussians),
        "shN": 0.0,
    }
    if options.level == 0 or len(gaussians) == 0:
        return found
    means, scales = gaussians.means.numpy(), gaussians.log_scales.numpy()
    half = _group(gaussians).block / 2
    step = half / _HALF_RANGE
    least = float(scales.min())
    # Relative to the scale: half a unit of 11 bits, or of what is left of them below the normal numbers.
    relative = max(2.0**-11, min(1.0, _HALF_LEAST / 2 / np.exp(max(least, np.log(_HALF_LEAST)))))
    # Readers multiply and add in float32: three roundings of an offset, one of the sum.
    found["means"] = step / 2 + 2.0**-24 * (4 * half + float(np.abs(means).max()))
    # Each component within half a unit of 11 bits below 1, the vector brought back to length 1.
    found["quats"] = 2 * 2.0**-12 / (1 - 2 * 2.0**-12)
    found["log_scales"] += -np.log1p(-relative) if relative < 1 else np.log(2)
    found["log_scales"] += tables.beyond(scales, float(np.log(_HALF_LEAST)), float(np.log(_HALF_LARGEST)))
    if options.level == 1:
        found["shN"] = _half_error(rest) + tables.beyond(rest, -_HALF_LARGEST, _HALF_LARGEST)
    else:
        found["shN"] = _sh_limit(gaussians) / 255 * 1.0001
    return found


def sniff(path: Path, head: bytes) -> bool:
    """Version 0.1, a level that there is, and few sections: no magic number tells more."""
    if len(head) < _HEADER:
        return path.name.lower().endswith(".ksplat") and not path.is_dir() and head[:2] == b"\0\1"
    first = np.frombuffer(head[:_HEADER], _FIRST)[0]
    return head[:4] == b"\0\1\0\0" and first["level"] < len(_TYPES) and 0 < first["sections"] < 1 << 16


FORMAT = Format(
    ".ksplat",
    (".ksplat",),
    sniff,
    read,
    write,
    options=KsplatOptions,
    max_error=max_error,
    order=by_scene(order),
    sh_degree=2,
    ladder=({}, {"level": 2}),
)
