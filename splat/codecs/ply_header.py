"""The header of PLY files, which the plain and the compressed layout share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from splat.codecs.format import UP_AXES, Metadata
from splat.core import DataError, Gaussians

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

# First words of the comments that mean something, which are written from what they mean.
HEADS = "splat_heads"
_MEANT = ("SplatRenderMode:", "offset", "up_axis", HEADS)

# A header of 62 properties has 1.5 kB; a longer one than this is no header.
LONGEST = 1 << 18


@dataclass
class Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)  # name, numpy type
    has_lists: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.properties]

    @property
    def row_bytes(self) -> int:
        return sum(np.dtype(kind).itemsize for _, kind in self.properties)


@dataclass
class Header:
    order: str
    elements: list[Element]
    comments: list[str]
    size: int  # bytes up to the first row

    def rows_end(self) -> int | None:
        """The bytes up to the end of the rows of all elements; None where lists hide it."""
        if any(element.has_lists for element in self.elements):
            return None
        return self.size + sum(element.count * element.row_bytes for element in self.elements)

    def find(self, path: Path, name: str) -> tuple[Element, int] | None:
        """The element of this name and where its rows begin; None if there is none.

        DataError where one with lists, whose length nothing tells, comes before it, or its names repeat.
        """
        start = self.size
        for element in self.elements:
            if element.name == name:
                if len(set(element.names)) < len(element.names):
                    raise DataError(f"{path}: damaged: the PLY header declares a property twice")
                return element, start
            if element.has_lists:
                raise DataError(
                    f"{path}: the PLY element {element.name!r} with lists comes before the Gaussians"
                )
            start += element.count * element.row_bytes
        return None


def read_header(path: Path, file: BinaryIO) -> Header:
    order: str | None = None
    elements: list[Element] = []
    comments: list[str] = []
    size = 0
    for number in range(LONGEST):
        raw = file.readline(LONGEST)
        size += len(raw)
        if not raw.endswith(b"\n") or size > LONGEST:
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
            elements.append(Element(words[1], int(words[2])))
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
    return Header(order, elements, comments, size)


def meaning(comments: list[str]) -> dict[str, Any]:
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


def comment_lines(gaussians: Gaussians, metadata: Metadata) -> list[str]:
    """The header's comment lines: those of the metadata, and what `meaning` will find in them."""
    comments = [str(line) for line in metadata.get("comments", ())]
    comments = [line for line in comments if line.partition(" ")[0] not in _MEANT]
    if metadata.get("generator"):
        line = f"Generated by {metadata['generator']}"
        comments += [] if line in comments else [line]
    if gaussians.antialiased:
        comments.append("SplatRenderMode: mip")
    if metadata.get("offset") is not None:
        x, y, z = (float(value) for value in metadata["offset"])
        comments.append(f"offset {x!r} {y!r} {z!r}")
    if metadata.get("up_axis") is not None:
        comments.append(f"up_axis {metadata['up_axis']}")
    return [f"comment {' '.join(line.split())}" for line in comments]


def parts(path: Path) -> dict[str, int]:
    """Bytes of the header and of each kind of property; of any binary PLY whose elements have no lists."""
    with open(path, "rb") as file:
        header = read_header(path, file)
        size = os.fstat(file.fileno()).st_size
    found = {"header": header.size}
    for element in header.elements:
        for name, kind in element.properties:
            part = _PARTS.get(name) or _PARTS.get(name.rpartition("_")[0]) or element.name
            found[part] = found.get(part, 0) + element.count * np.dtype(kind).itemsize
    rest = size - sum(found.values())
    return {**found, "other": rest} if rest else found


_PARTS = {
    **dict.fromkeys(("x", "y", "z", "packed_position"), "positions"),
    **dict.fromkeys(("nx", "ny", "nz"), "normals"),
    **dict.fromkeys(("f_dc", "packed_color"), "colours"),
    "f_rest": "harmonics",
    "opacity": "opacities",
    "feature": "head",
    "weight": "head",
    **dict.fromkeys(("scale", "packed_scale"), "scales"),
    **dict.fromkeys(("rot", "packed_rotation"), "rotations"),
}
