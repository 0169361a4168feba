"""RealityCapture's (RealityScan's) export "Internal/External camera parameters": one line of csv a photograph.

Conventions from Epic's "Camera Geometry in RealityScan" (2025): f is in 35 mm equivalent, px and py in normalised
image coordinates, both of the longer side; heading, pitch and roll turn a camera that looks down with its upper edge
north, by Euler angles ZYX about north, east and down, while x, y and alt point east, north and up; t1 and t2 are
OpenCV's p2 and p1. The sign and order of the angles agree with nerfstudio's and Brush's readers. Division models
export a k1 of another meaning, which the file does not tell from Brown's: Brown's, the default, is taken.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from splat.data.brown import brown
from splat.data.frames import View, build_frames
from splat.data.intrinsics import Intrinsics
from splat.data.locate import Photographs
from splat.data.ply import points_beside
from splat.data.poses import OPENGL, world_to_camera
from splat.data.problems import DatasetError, Report
from splat.data.scene import Scene

_NEEDED = ("name", "x", "y", "alt", "heading", "pitch", "roll", "f")
_OPTIONAL = ("px", "py", "k1", "k2", "k3", "k4", "t1", "t2")
_AGAIN = "export it again: Alignment, Export, Registration, Internal/External camera parameters"


class RealityCaptureReader:
    """A csv file of camera parameters beside its photographs, and a PLY where there is just one."""

    name = "realitycapture"

    def sniff(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path, report: Report) -> Scene:
        files = _files(path)
        file = files[0]
        if len(files) > 1:
            names = ", ".join(other.name for other in files)
            cause = f"{len(files)} exports of camera parameters ({names})"
            raise DatasetError("several-models", path, cause, f"name one: {file}")
        root = file.parent
        photographs = Photographs(root)
        views = []
        for line, row in _rows(file):
            try:
                views.append(_view(file, line, row, photographs))
            except DatasetError as error:
                report.error(error)
        if not views:
            report.error(DatasetError("realitycapture-damaged", file, "lists no photograph", _AGAIN))
        frames = build_frames(root, views, report, what=file.name)
        return Scene(path, root.resolve().name, self.name, frames, points_beside(root, frames, report))


def _files(path: Path) -> list[Path]:
    """The csv files there, or the one given, that begin as the export does."""
    candidates = sorted(path.glob("*.csv")) if path.is_dir() else [path] if path.suffix == ".csv" else []
    return [file for file in candidates if set(_NEEDED) <= set(_header(file))]


def _columns(line: str) -> list[str]:
    return [column.strip().lstrip("#").lower() for column in line.split(",")]


def _header(file: Path) -> list[str]:
    """Names of the columns; [] where the file cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            first = stream.readline(4096)
            # An option of the export counts the cameras first.
            return _columns(stream.readline(4096) if first.startswith("#cameras") else first)
    except OSError:
        return []


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Number and cells of each line after the header."""
    header = _header(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("realitycapture-damaged", file, f"cannot be read ({error})", _AGAIN) from error
    found = []
    for number, row in rows:
        if row[0].startswith("#") or row[0].strip().lower() == "name":
            continue
        if len(row) != len(header):
            cause = f"line {number} has {len(row)} values under {len(header)} names"
            raise DatasetError("realitycapture-damaged", file, cause, _AGAIN)
        found.append((number, dict(zip(header, row, strict=True))))
    return found


def _view(file: Path, line: int, row: dict[str, str], photographs: Photographs) -> View:
    values = {}
    for key in (*_NEEDED[1:], *_OPTIONAL):
        try:
            values[key] = float(row.get(key, "0"))
        except ValueError:
            values[key] = np.nan
        if not np.isfinite(values[key]):
            cause = f"{key} in line {line} is {row[key]!r}, not a number"
            raise DatasetError("realitycapture-damaged", file, cause, _AGAIN)
    name, path = photographs.find(row["name"].strip())

    def sized(width: int, height: int) -> Intrinsics:
        side = max(width, height)
        focal = values["f"] / 36 * side
        pinhole = (focal, focal, values["px"] * side + width / 2, values["py"] * side + height / 2)
        radial = (values["k1"], values["k2"], values["k3"], values["k4"])
        try:
            return brown(pinhole, radial, (values["t2"], values["t1"]), width, height)
        except ValueError as error:
            raise DatasetError(
                "camera-model", file, f"{name}: {error}", "export with the distortion model Brown3"
            ) from error

    camera_to_world = np.eye(4)
    camera_to_world[:3, :3] = attitude(values["heading"], values["pitch"], values["roll"])
    camera_to_world[:3, 3] = values["x"], values["y"], values["alt"]
    return View(name, path, None, OPENGL @ world_to_camera(camera_to_world), sized)


def attitude(heading: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3] camera to world, axes right, up and backwards to east, north and up; angles in degrees.

    About north, east and down the angles are applied in the order Z (heading), Y (pitch), X (roll). The camera's
    right is east there, its up north, its back up; the same exchange of axes leads from north, east, down to east,
    north, up, and turns the rotations into those about -z, x and y.
    """
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("ZXY", [-heading, pitch, roll], degrees=True).as_matrix()
