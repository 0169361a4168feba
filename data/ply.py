"""Point clouds that come with a transforms.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splat.data.problems import DatasetError, Report
from splat.data.scene import Points

_REMEDY = "export the point cloud again as PLY with x, y, z and red, green, blue"
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


def read_points(path: Path, report: Report) -> Points | None:
    """Positions and colours of a PLY point cloud; grey where it has no colours, None where it has no points.

    Raises:
        DatasetError: (strict report) the file is missing or damaged.
    """
    try:
        return _read(path)
    except DatasetError as error:
        report.error(error)
    except (OSError, ValueError, IndexError, OverflowError) as error:
        report.error(DatasetError("points-damaged", path, f"cannot be read ({error})", _REMEDY))
    return None


def _read(path: Path) -> Points | None:
    if not path.is_file():
        raise DatasetError("points-missing", path, "no such point cloud", "put it back or drop ply_file_path")
    data = path.read_bytes()
    head, mark, rest = data.partition(b"end_header")
    body = rest.partition(b"\n")[2]
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not mark or not lines or lines[0] != ["ply"]:
        raise DatasetError("points-damaged", path, "is not a PLY file", _REMEDY)
    form = next((line[1] for line in lines if line[:1] == ["format"]), "")
    elements = [line for line in lines if line[:1] == ["element"]]
    if form not in _ORDER or not elements or elements[0][1] != "vertex":
        raise DatasetError("points-damaged", path, "does not begin with its vertices", _REMEDY)
    count = int(elements[0][2])
    if count < 0:
        raise DatasetError("points-damaged", path, f"announces {count} points", _REMEDY)
    fields = []
    for line in lines[lines.index(elements[0]) + 1 :]:
        if line[:1] == ["element"]:
            break
        if line[:1] == ["property"]:
            if line[1] not in _TYPES:
                raise DatasetError("points-damaged", path, f"has vertices of type {line[1]}", _REMEDY)
            fields.append((line[2], _ORDER[form] + _TYPES[line[1]]))
    layout = np.dtype(fields)
    if not {"x", "y", "z"} <= set(layout.names or ()):
        raise DatasetError("points-damaged", path, "has no x, y, z", _REMEDY)
    if form == "ascii":
        rows = [line.split()[: len(fields)] for line in body.splitlines()[:count]]
        complete = len(rows) == count and all(len(row) == len(fields) for row in rows)
        values = np.array(rows if complete else [], dtype=np.float64).reshape(-1, len(fields))
        table = {name: values[:, column] for column, (name, _) in enumerate(fields)}
    else:
        complete = len(body) >= count * layout.itemsize
        vertices = np.frombuffer(body, layout, count) if complete else np.empty(0, layout)
        table = {name: vertices[name] for name, _ in fields}
    if not complete:
        raise DatasetError("points-damaged", path, f"is truncated: {count} points were announced", _REMEDY)
    if count == 0:
        return None
    xyz = np.stack([table[axis] for axis in "xyz"], 1).astype(np.float64)
    if not np.isfinite(xyz).all():
        raise DatasetError("points-damaged", path, "has points that are not finite", _REMEDY)
    rgb = np.full((count, 3), 128, np.uint8)
    if {"red", "green", "blue"} <= set(table):
        colours = np.stack([table[channel] for channel in ("red", "green", "blue")], 1)
        scale = 255 if np.dtype(dict(fields)["red"]).kind == "f" and colours.max() <= 1 else 1
        rgb = (colours * scale).clip(0, 255).astype(np.uint8)
    return Points(torch.from_numpy(xyz), torch.from_numpy(rgb))
