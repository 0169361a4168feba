"""The .ply of the 3DGS authors: raw parameters as float32, one row a Gaussian.

Rows are x y z, normals (unused, zero), f_dc (3), f_rest (channel-major: all of red, then green, then blue),
opacity (logit), scale (3, logarithms), rot (4, wxyz). Files are read by the names in their header, so that
any order, missing normals, other types and further properties do no harm.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from splat.codecs.format import UP_AXES, Decoded, Format, Metadata, NoOptions
from splat.core import DataError, Gaussians, sh
from splat.core.files import replacing

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COLOR = ("f_dc_0", "f_dc_1", "f_dc_2")
_REQUIRED = (*_POSITION, *_COLOR, "opacity", *_SCALE, *_ROTATION)
# First words of the comments that mean something, which are written from what they mean.
_MEANT = ("SplatRenderMode:", "offset", "up_axis")

# A header of 62 properties has 1.5 kB; a longer one than this is no header.
_LONGEST_HEADER = 1 << 18
# Rows that are converted at a time: bounds the memory beyond the scene's own.
_ROWS = 1 << 16


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)  # name, numpy type
    has_lists: bool = False


@dataclass
class _Header:
    order: str
    elements: list[_Element]
    comments: list[str]
    size: int  # bytes up to the first row


def read(path: Path) -> Decoded:
    with open(path, "rb") as file:
        header = _read_header(path, file)
        vertex, start = _find_vertex(path, header)
        names = [name for name, _ in vertex.properties]
        rest = _rest_names(path, names)
        wanted = {"means": _POSITION, "quats": _ROTATION, "log_scales": _SCALE, "sh0": _COLOR, "rest": rest}

        dtype = np.dtype([(name, header.order + kind) for name, kind in vertex.properties])
        size = os.fstat(file.fileno()).st_size
        if start + vertex.count * dtype.itemsize > size:
            held = max(0, size - start) // dtype.itemsize
            raise DataError(
                f"{path}: cut short: the header declares {vertex.count} Gaussians of {dtype.itemsize} bytes, "
                f"the file has {held}; copy or download it again"
            )
        arrays = {name: np.empty((vertex.count, len(parts)), np.float32) for name, parts in wanted.items()}
        opacity = np.empty(vertex.count, np.float32)
        file.seek(start)
        for begin in range(0, vertex.count, _ROWS):
            rows = np.fromfile(file, dtype, min(_ROWS, vertex.count - begin))
            part = slice(begin, begin + len(rows))
            # A double beyond float32's range becomes an infinity, which the check of the values reports.
            with np.errstate(over="ignore", invalid="ignore"):
                opacity[part] = rows["opacity"]
                for name, parts in wanted.items():
                    for column, source in enumerate(parts):
                        arrays[name][part, column] = rows[source]
        end = file.tell() if vertex.count else start

    notes = []
    extra = [name for name in names if name not in {*_REQUIRED, *_NORMAL, *rest}]
    if extra:
        notes.append(f"ignored properties: {', '.join(extra[:8])}{' ...' if len(extra) > 8 else ''}")
    others = [element.name for element in header.elements if element is not vertex and element.count]
    if others:
        notes.append(f"ignored elements: {', '.join(others)}")
    elif end < size:
        notes.append(f"ignored the {size - end} bytes that follow the {vertex.count} Gaussians of the header")

    harmonics = np.concatenate(
        [arrays["sh0"][:, None], arrays["rest"].reshape(vertex.count, 3, len(rest) // 3).transpose(0, 2, 1)],
        1,
    )
    meant = _meaning(header.comments)
    gaussians = Gaussians(
        means=torch.from_numpy(arrays["means"]),
        quats=torch.from_numpy(arrays["quats"]),
        log_scales=torch.from_numpy(arrays["log_scales"]),
        logit_opacities=torch.from_numpy(opacity),
        sh=torch.from_numpy(np.ascontiguousarray(harmonics)),
        antialiased=meant.pop("mode", None) == "mip",
    )
    return Decoded(gaussians, {"version": "1.0", "comments": header.comments, **meant}, notes)


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: NoOptions) -> list[str]:
    count, degree = len(gaussians), gaussians.sh_degree
    rest = [f"f_rest_{i}" for i in range(3 * (sh.coefficients(degree) - 1))]
    names = [*_POSITION, *_NORMAL, *_COLOR, *rest, "opacity", *_SCALE, *_ROTATION]
    comments = [str(line) for line in metadata.get("comments", ())]
    comments = [line for line in comments if line.partition(" ")[0] not in _MEANT]
    if metadata.get("generator"):
        comments.append(f"Generated by {metadata['generator']}")
    if gaussians.antialiased:
        comments.append("SplatRenderMode: mip")
    if metadata.get("offset") is not None:
        x, y, z = (float(value) for value in metadata["offset"])
        comments.append(f"offset {x!r} {y!r} {z!r}")
    if metadata.get("up_axis") is not None:
        comments.append(f"up_axis {metadata['up_axis']}")
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {' '.join(line.split())}" for line in comments]
    lines += [f"element vertex {count}", *(f"property float {name}" for name in names), "end_header", ""]

    with replacing(path) as file:
        file.write("\n".join(lines).encode("ascii", "replace"))
        for begin in range(0, count, _ROWS):
            part = gaussians.select(torch.arange(begin, min(begin + _ROWS, count), device=gaussians.device))
            zeros = torch.zeros_like(part.means)
            columns = [part.means, zeros, part.sh[:, 0], part.sh[:, 1:].mT.flatten(1)]
            columns += [part.logit_opacities[:, None], part.log_scales, part.quats]
            rows = torch.cat(columns, 1).to("cpu", torch.float32).numpy()
            if not np.isfinite(rows).all():
                row, column = np.argwhere(~np.isfinite(rows))[0]
                what = f"{names[column]} of Gaussian {begin + row}"
                raise DataError(f"{path} was not written: {what} is beyond float32's range")
            file.write(rows.astype("<f4", copy=False).tobytes())
    return []


def max_error(gaussians: Gaussians, options: NoOptions) -> dict[str, float]:
    """Zero: the parameters are stored as they are, in float32."""
    return dict.fromkeys(("means", "quats", "log_scales", "opacities", "sh0", "shN"), 0.0)


def _read_header(path: Path, file: BinaryIO) -> _Header:
    order: str | None = None
    elements: list[_Element] = []
    comments: list[str] = []
    size = 0
    for number in range(_LONGEST_HEADER):
        raw = file.readline(_LONGEST_HEADER)
        size += len(raw)
        if not raw.endswith(b"\n") or size > _LONGEST_HEADER:
            raise DataError(f"{path}: damaged: the PLY header has no end_header line")
        line = raw.decode("latin-1").strip()
        words = line.split()
        if number == 0:
            if line != "ply":
                raise DataError(f"{path}: not a PLY file (it begins with {raw[:8]!r})")
        elif not words or words[0] == "obj_info":
            continue
        elif words[0] == "comment":
            comments.append(line[len("comment") :].strip())
        elif words[0] == "format" and len(words) == 3:
            if words[1] == "ascii":
                raise DataError(f"{path}: a PLY file in text form; save it as binary_little_endian")
            order = _ORDERS.get(words[1])
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) <= 15:
            elements.append(_Element(words[1], int(words[2])))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].properties.append((words[2], _TYPES[words[1]]))
        elif words[0] == "property" and elements and len(words) == 5 and words[1] == "list":
            elements[-1].has_lists = True
        elif line == "end_header":
            break
        else:
            raise DataError(f"{path}: damaged: line {number + 1} of the PLY header is {line[:60]!r}")
    if order is None:
        raise DataError(f"{path}: damaged: the PLY header names no known format")
    return _Header(order, elements, comments, size)


def _find_vertex(path: Path, header: _Header) -> tuple[_Element, int]:
    """The element that has the Gaussians, and where its rows begin."""
    start = header.size
    for element in header.elements:
        names = [name for name, _ in element.properties]
        if element.name == "vertex":
            if len(set(names)) < len(names):
                raise DataError(f"{path}: damaged: the PLY header declares a property twice")
            if "packed_position" in names:
                raise DataError(
                    f"{path}: a compressed PLY, which cannot be read yet; convert it to a plain .ply"
                )
            missing = [name for name in _REQUIRED if name not in names]
            if missing:
                kind = "a point cloud or mesh without Gaussians: " if "f_dc_0" not in names else ""
                raise DataError(f"{path}: {kind}the PLY header lacks the properties {', '.join(missing)}")
            if element.has_lists:
                raise DataError(f"{path}: the PLY header gives the Gaussians a list property")
            return element, start
        if element.has_lists:
            raise DataError(f"{path}: the PLY element {element.name!r} with lists comes before the Gaussians")
        start += element.count * sum(np.dtype(kind).itemsize for _, kind in element.properties)
    raise DataError(f"{path}: the PLY header declares no vertex element, hence no Gaussians")


def _rest_names(path: Path, names: list[str]) -> tuple[str, ...]:
    """f_rest_0 ... in order; DataError unless they make up whole bands."""
    count = sum(name.startswith("f_rest_") for name in names)
    expected = tuple(f"f_rest_{i}" for i in range(count))
    if count not in (0, 9, 24, 45) or not set(expected) <= set(names):
        raise DataError(
            f"{path}: the PLY header has {count} f_rest properties; SH degrees 0 to 3 have 0, 9, 24 or 45"
        )
    return expected


def _meaning(comments: list[str]) -> dict[str, Any]:
    """What the comments state of the render `mode`, the `offset` and the `up_axis`."""
    meant: dict[str, Any] = {}
    for comment in comments:
        words = comment.split()
        if len(words) == 2 and words[0] == "SplatRenderMode:":
            meant["mode"] = words[1].lower()
        elif len(words) == 2 and words[0] == "up_axis" and words[1] in UP_AXES:
            meant["up_axis"] = words[1]
        elif len(words) == 4 and words[0] == "offset":
            try:
                values = [float(word) for word in words[1:]]
            except ValueError:
                continue
            if np.isfinite(values).all():
                meant["offset"] = values
    return meant


def sniff(path: Path, head: bytes) -> bool:
    return head.startswith(b"ply")


def parts(path: Path) -> dict[str, int]:
    """Bytes of the header and of each kind of property; of any binary PLY whose elements have no lists."""
    with open(path, "rb") as file:
        header = _read_header(path, file)
        size = os.fstat(file.fileno()).st_size
    found = {"header": header.size}
    for element in header.elements:
        for name, kind in element.properties:
            part = _PARTS.get(name) or _PARTS.get(name.rpartition("_")[0]) or element.name
            found[part] = found.get(part, 0) + element.count * np.dtype(kind).itemsize
    rest = size - sum(found.values())
    return {**found, "other": rest} if rest else found


_PARTS = {
    **dict.fromkeys((*_POSITION, "packed_position"), "positions"),
    **dict.fromkeys(_NORMAL, "normals"),
    **dict.fromkeys(("f_dc", "packed_color"), "colours"),
    "f_rest": "harmonics",
    "opacity": "opacities",
    **dict.fromkeys(("scale", "packed_scale"), "scales"),
    **dict.fromkeys(("rot", "packed_rotation"), "rotations"),
}


FORMAT = Format(
    "PLY",
    (".ply",),
    sniff,
    read,
    write,
    max_error=max_error,
    holds=frozenset({"antialiased", "offset", "up_axis"}),
    parts=parts,
)
