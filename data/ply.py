"""Point clouds as PLY files that come with poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from splat.data.points import times_seen
from splat.data.problems import DatasetError, Report, some
from splat.data.scene import Frame, Points

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


def points_beside(
    root: Path, frames: Sequence[Frame], report: Report, transforms: Sequence[np.ndarray] = ()
) -> Points | None:
    """The point cloud that a program left as the only PLY in a folder; what there is to say is reported.

    Args:
        root: the folder; files that hold Gaussians are passed over.
        frames: they tell whether the points lie in their coordinates.
        transforms: [4, 4] matrices that may lead from the points' coordinates to those of the frames; that under
            which the cameras see most is taken, none where that is as good.
    """
    files = [file for file in sorted(root.glob("*.ply")) if not _holds_gaussians(file)]
    remedy = (
        "random points are used; leave just one point cloud, in the coordinates of the cameras, beside them"
    )
    if len(files) != 1:
        names = some([file.name for file in files])
        there = f"{len(files)} point clouds ({names})" if files else "no point cloud (PLY)"
        report.warn("no-points", f"{root}: {there} beside the cameras", remedy)
        return None
    points = read_points(files[0], report)
    if points is None or not frames:
        return points
    moved = [replace(points, xyz=points.xyz @ _linear(m).T + torch.from_numpy(m[:3, 3])) for m in transforms]
    cameras = [frame.camera for frame in frames]
    best = max([points, *moved], key=lambda candidate: times_seen(cameras, candidate.xyz))
    if times_seen(cameras, best.xyz) == 0:
        report.warn("points-elsewhere", f"{files[0]}: no camera sees any of its points", remedy)
        return None
    return best


def _linear(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix[:3, :3]))


def _holds_gaussians(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(8192)
    except OSError:
        return False
    return b" f_dc_0" in head or b" packed_position" in head


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
        if not np.isfinite(colours).all():
            raise DatasetError("points-damaged", path, "has colours that are not finite", _REMEDY)
        scale = 255 if np.dtype(dict(fields)["red"]).kind == "f" and colours.max() <= 1 else 1
        rgb = (colours * scale).clip(0, 255).astype(np.uint8)
    return Points(torch.from_numpy(xyz), torch.from_numpy(rgb))
