"""Niantic's .spz, versions 1 to 4 read, 2 to 4 written.

Versions 1 to 3 are one gzip stream: a header of 16 bytes, then the attributes. Version 4 is a plain header of 32
bytes, extension records, a table of contents and one zstd frame for each attribute. Bytes are in spz_layout.py.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.codecs import spz_layout, tables
from splat.codecs.bounded import Inflater, require, unzstd
from splat.codecs.format import Decoded, Format, Metadata
from splat.codecs.smallest_three import quat_error
from splat.codecs.spz_layout import Layout
from splat.core import DataError, Gaussians, UsageError, sh
from splat.core.files import replacing

_MAGIC, _GZIP = b"NGSP", b"\x1f\x8b"
_LEGACY = struct.Struct("<4sIIBBBB")  # magic, version, count, SH degree, fractional bits, flags, reserved
_HEADER = struct.Struct("<4sIIBBBBI12x")  # ... flags, streams, where the table of contents begins
_ENTRY = struct.Struct("<QQ")  # compressed and plain bytes of a stream
_RECORD = struct.Struct("<II")  # type and bytes of an extension
_ANTIALIASED, _EXTENDED, _LEVELS = 0x01, 0x02, 0x80
_LARGEST_DEGREE = 4

# Adobe's extension names the axes of the file: unspecified, then these.
_AXES_RECORD = 0xADBE0003
_AXES = [
    "LDB",
    "RDB",
    "LUB",
    "RUB",
    "LDF",
    "RDF",
    "LUF",
    "RUF",
    "LFD",
    "RFD",
    "LFU",
    "RFU",
    "LBD",
    "RBD",
    "LBU",
    "RBU",
]

# The newest version that each viewer reads.
VIEWERS = {"niantic": 4, "playcanvas": 4, "supersplat": 4, "three": 4, "spark": 3, "mkkellogg": 2}
_USUAL_VERSION = 3


@dataclass(frozen=True)
class SpzOptions:
    """The .spz."""

    version: int | None = None
    """2, 3 or 4; by default what --spz.viewer-target reads, else 3, which most viewers do."""
    viewer_target: str | None = None
    """Choose the version by viewer: niantic, playcanvas, supersplat, three (4), spark (3) or mkkellogg (2)."""
    sh1_bits: int = 5
    """Bits of the first band of the harmonics, 1 to 8: fewer make a smaller file."""
    sh_rest_bits: int = 4
    """Bits of the other bands, 1 to 8."""

    def __post_init__(self) -> None:
        if self.viewer_target is not None and self.viewer_target not in VIEWERS:
            raise UsageError(f"spz: no viewer {self.viewer_target!r} is known; known: {', '.join(VIEWERS)}")
        if self.version not in (None, 2, 3, 4):
            raise UsageError(f"spz: version must be 2, 3 or 4, got {self.version}")
        newest = VIEWERS.get(self.viewer_target or "")
        if self.version is not None and newest is not None and self.version != newest:
            raise UsageError(
                f"spz: version {self.version} is not the one for {self.viewer_target}, which is {newest}"
            )
        if not (1 <= self.sh1_bits <= 8 and 1 <= self.sh_rest_bits <= 8):
            raise UsageError("spz: sh1_bits and sh_rest_bits must be 1 to 8")

    @property
    def chosen(self) -> int:
        """The version to write."""
        return self.version or VIEWERS.get(self.viewer_target or "", _USUAL_VERSION)


def read(path: Path) -> Decoded:
    data = path.read_bytes()
    if data.startswith(_GZIP) or struct.unpack_from("<I", data.ljust(8, b"\0"), 4)[0] < 4:
        return _read_legacy(path, data)
    return _read_streams(path, data)


def _layout(path: Path, version: int, count: int, degree: int, bits: int) -> Layout:
    if degree > _LARGEST_DEGREE:
        raise DataError(f"{path}: damaged: harmonics of degree {degree}")
    if bits > 24:
        raise DataError(f"{path}: damaged: positions with {bits} fractional bits of 24")
    return Layout(version, count, degree, bits)


def _read_legacy(path: Path, data: bytes) -> Decoded:
    """Versions 1 to 3, in gzip or (which some tools leave) unpacked."""
    source = Inflater(path, data) if data.startswith(_GZIP) else _Plain(data)
    head = source.read(_LEGACY.size)
    if len(head) < _LEGACY.size or head[:4] != _MAGIC:
        raise DataError(f"{path}: not an .spz file (its content begins with {head[:4]!r})")
    _, version, count, degree, bits, flags, _ = _LEGACY.unpack(head)
    if not 1 <= version <= 3:
        raise DataError(f"{path}: .spz of version {version} in gzip; versions 1 to 3 are")
    layout = _layout(path, version, count, degree, bits)
    sizes = layout.sizes()
    body = source.read(sum(sizes.values()))
    require(path, f"{count:,} Gaussians", sum(sizes.values()), len(body))
    streams, at = {}, 0
    for name, size in sizes.items():
        streams[name] = memoryview(body)[at : at + size]
        at += size
    notes = []
    if flags & _LEVELS:
        notes.append("ignored the levels of detail that the file describes")
        source.read(6 * count)
    rest = source.read(_FREE_RECORDS) if flags & _EXTENDED else b""
    return _decoded(path, layout, streams, flags, rest, notes)


# Extension records of versions 1 to 3 follow at the end, with nothing to tell their length.
_FREE_RECORDS = 1 << 20


class _Plain:
    """Reads bytes like an Inflater."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        self._at += len(part)
        return part


def _read_streams(path: Path, data: bytes) -> Decoded:
    require(path, "the header", _HEADER.size, len(data))
    magic, version, count, degree, bits, flags, number, contents = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DataError(f"{path}: not an .spz file (it begins with {magic!r})")
    if version != 4:
        raise DataError(f"{path}: .spz of version {version}; versions 1 to 4 can be read")
    layout = _layout(path, version, count, degree, bits)
    sizes = {name: size for name, size in layout.sizes().items() if name != "sh" or degree}
    if number != len(sizes) or contents < _HEADER.size:
        raise DataError(f"{path}: damaged: {number} streams, harmonics of degree {degree} make {len(sizes)}")
    at = contents + number * _ENTRY.size
    require(path, "the table of contents", at, len(data))
    streams: dict[str, bytes | memoryview] = {"sh": b""}
    for index, (name, size) in enumerate(sizes.items()):
        packed, plain = _ENTRY.unpack_from(data, contents + index * _ENTRY.size)
        require(path, f"the {name}", at + packed, len(data))
        if plain != size:
            raise DataError(f"{path}: damaged: {name} of {plain:,} bytes, {count:,} Gaussians need {size:,}")
        streams[name] = unzstd(path, memoryview(data)[at : at + packed], size, f"the {name}")
        at += packed
    return _decoded(path, layout, streams, flags, data[_HEADER.size : contents], [])


def _decoded(
    path: Path,
    layout: Layout,
    streams: Mapping[str, bytes | memoryview],
    flags: int,
    records: bytes,
    notes: list[str],
) -> Decoded:
    stored = _stated_axes(path, records) if flags & _EXTENDED else spz_layout.STORED
    if layout.degree > sh.MAX_DEGREE:
        notes.append(
            f"ignored the harmonics above degree {sh.MAX_DEGREE}: the file has degree {layout.degree}"
        )
    gaussians = spz_layout.unpack(layout, streams, stored, bool(flags & _ANTIALIASED))
    metadata: Metadata = {"version": str(layout.version), "comments": [], "fractional_bits": layout.bits}
    return Decoded(gaussians, metadata, notes)


def _stated_axes(path: Path, records: bytes) -> str:
    """The axes that an extension record states, else SPZ's own; other records are skipped."""
    at, stored = 0, spz_layout.STORED
    while at + _RECORD.size <= len(records):
        kind, size = _RECORD.unpack_from(records, at)
        content = records[at + _RECORD.size : at + _RECORD.size + size]
        if len(content) < size:
            raise DataError(
                f"{path}: damaged: an extension record of {size:,} bytes is longer than its place"
            )
        if kind == _AXES_RECORD and size == 4:
            number = int.from_bytes(content, "little")
            if number > len(_AXES):
                raise DataError(f"{path}: damaged: an extension record names unknown axes ({number})")
            stored = _AXES[number - 1] if number else stored
        at += _RECORD.size + size
    return stored


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: SpzOptions) -> list[str]:
    version, count, degree = options.chosen, len(gaussians), gaussians.sh_degree
    layout = Layout(version, count, degree, spz_layout.choose_bits(path, gaussians))
    streams = spz_layout.pack(gaussians, layout, (options.sh1_bits, options.sh_rest_bits))
    flags = _ANTIALIASED * gaussians.antialiased
    with replacing(path) as file:
        if version < 4:
            # zlib's own gzip header has no time.
            deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
            file.write(deflate.compress(_LEGACY.pack(_MAGIC, version, count, degree, layout.bits, flags, 0)))
            for content in streams.values():
                file.write(deflate.compress(content))
            file.write(deflate.flush())
        else:
            import zstandard

            compressor = zstandard.ZstdCompressor(level=12)
            kept = [content for name, content in streams.items() if name != "sh" or degree]
            frames = [compressor.compress(content) for content in kept]
            file.write(_HEADER.pack(_MAGIC, 4, count, degree, layout.bits, flags, len(kept), _HEADER.size))
            for frame, content in zip(frames, kept, strict=True):
                file.write(_ENTRY.pack(len(frame), len(content)))
            for frame in frames:
                file.write(frame)
    return _changes(gaussians, layout)


def _changes(gaussians: Gaussians, layout: Layout) -> list[str]:
    """Notes on what does not fit the bytes."""
    low, high = spz_layout.SCALE_RANGE
    outside = {
        f"scales outside exp({low:g}) to exp({high:.3g})": (gaussians.log_scales < low)
        | (gaussians.log_scales > high),
        "colours far outside [0, 1]": gaussians.sh[:, 0].abs() > spz_layout.COLOR_LIMIT,
        "harmonics beyond +-1": gaussians.sh[:, 1:].abs() > 1,
    }
    notes = [
        f"{what}, which were clamped: {int(where.sum())}" for what, where in outside.items() if where.any()
    ]
    if layout.bits < spz_layout.USUAL_BITS:
        notes.append(f"centres are rounded to steps of {2.0**-layout.bits:g} units: the scene is wide")
    return notes


def max_error(gaussians: Gaussians, options: SpzOptions) -> dict[str, float]:
    """Half a step of each value, and what clamping does."""
    if len(gaussians) == 0:
        return dict.fromkeys(("means", "quats", "log_scales", "opacities", "sh0", "shN"), 0.0)
    band0, rest = gaussians.sh[:, 0].numpy(), gaussians.sh[:, 1:].numpy()
    step = 1 << (8 - min(options.sh1_bits, options.sh_rest_bits))
    # Steps end at 256, and bytes at 255.
    short = 1 / 128 if rest.size and rest.max() > 1 - step / 128 else 0.0
    means = gaussians.means.numpy()
    quats = quat_error(0.5 / 511 * 0.5**0.5)
    if options.chosen == 2:
        # w = sqrt(1 - |v|^2) is the steepest where it is 0: |v| off by sqrt(3) half steps gives sqrt(2 |dv|).
        quats = float(np.sqrt(2 * 3**0.5 * 0.5 / 127.5)) * 1.01
    return {
        "means": 2.0 ** -(spz_layout.choose_bits("scene", gaussians) + 1)
        + 2.0**-23 * float(np.abs(means).max()),
        "quats": quats,
        "log_scales": 1 / 32 + tables.beyond(gaussians.log_scales.numpy(), *spz_layout.SCALE_RANGE) + 1e-6,
        "opacities": tables.OPACITY_ERROR + 1e-6,
        "sh0": 0.5 / spz_layout.COLOR_GAIN + tables.beyond(band0, -3.3333, 3.3333) + 1e-6,
        "shN": step / 256 + short + tables.beyond(rest, -1, 1) + 1e-6,
    }


def sniff(path: Path, head: bytes) -> bool:
    """The magic number, in plain or at the beginning of a gzip stream."""
    if head.startswith(_GZIP):
        try:
            return zlib.decompressobj(31).decompress(head, 4) == _MAGIC
        except zlib.error:
            return False
    return head.startswith(_MAGIC)


def parts(path: Path) -> dict[str, int]:
    """Bytes of each attribute in version 4; the others are one stream."""
    data = path.read_bytes()
    if data.startswith(_MAGIC) and len(data) >= _HEADER.size and struct.unpack_from("<I", data, 4)[0] == 4:
        _, _, _, _, _, _, number, contents = _HEADER.unpack_from(data)
        names = list(Layout(4, 0, 0, 0).sizes())[:number]
        found = {
            name: _ENTRY.unpack_from(data, contents + index * _ENTRY.size)[0]
            for index, name in enumerate(names)
        }
        return {"header": len(data) - sum(found.values()), **found}
    return {"all": len(data)}


FORMAT = Format(
    "SPZ",
    (".spz",),
    sniff,
    read,
    write,
    options=SpzOptions,
    max_error=max_error,
    parts=parts,
    ladder=tuple(
        {"sh1_bits": first, "sh_rest_bits": rest}
        for first, rest in ((8, 8), (7, 6), (6, 5), (5, 4), (4, 3), (3, 2))
    ),
    holds=frozenset({"antialiased"}),
)
