"""transforms.json as nerfstudio and instant-ngp write it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from splat.data.frames import View, build_frames
from splat.data.images import SUFFIXES
from splat.data.intrinsics import Intrinsics
from splat.data.ply import read_points
from splat.data.problems import DatasetError, Report
from splat.data.scene import Scene

_AGAIN = "export the dataset again, or correct the file"
_FISHEYE = "OPENCV_FISHEYE"
_PINHOLES = {"PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE"}
# Camera axes of OpenGL (x right, y up, z backwards) in those of OpenCV.
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


class TransformsReader:
    """transforms.json: one file with poses, intrinsics shared or per frame."""

    name = "transforms"

    def sniff(self, path: Path) -> bool:
        return _file(path).is_file() and _file(path).suffix == ".json"

    def read(self, path: Path, report: Report) -> Scene:
        file = _file(path)
        root = file.parent
        content = load_json(file)
        views = read_views(file, content, report)
        frames = build_frames(root, views, report, what=file.name)
        points = None
        if "ply_file_path" in content:
            points = read_points(root / str(content["ply_file_path"]), report)
        if points is None:
            message = f"{file}: no points come with it"
            report.warn(
                "no-points", message, "random points are used; name a point cloud in ply_file_path for better"
            )
        return Scene(path, root.resolve().name, self.name, frames, points)


def _file(path: Path) -> Path:
    return path / "transforms.json" if path.is_dir() else path


def load_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DatasetError: it cannot be read or is no JSON object.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError(
            "transforms-unreadable", file, "cannot be read", "change its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError("transforms-damaged", file, f"is not valid JSON ({error})", _AGAIN) from error
    if not isinstance(content, dict):
        raise DatasetError("transforms-damaged", file, "holds no JSON object", _AGAIN)
    return content


def list_frames(file: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The frames that a file lists, each an object with file_path and transform_matrix."""
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise DatasetError("transforms-damaged", file, 'has no list of "frames"', _AGAIN)
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise DatasetError("transforms-damaged", file, f"frame {index} has no file_path", _AGAIN)
    return frames


def number(file: Path, where: str, value: Any) -> float:
    """A finite number from JSON; DatasetError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DatasetError("transforms-damaged", file, f"{where} is {value!r}, not a number", _AGAIN)
    return float(value)


def opencv_pose(file: Path, frame: dict[str, Any]) -> np.ndarray:
    """[4, 4] float64 world-to-camera (OpenCV) from a camera-to-world transform_matrix (OpenGL).

    A uniform scale in the rotation is removed and small departures from a rotation are corrected: writers round.

    Raises:
        DatasetError: the matrix is not 4x4 (or 3x4), not finite or no rigid motion.
    """
    name = frame["file_path"]
    try:
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DatasetError("pose", file, f"the transform_matrix of {name} is not a finite 4x4 matrix", _AGAIN)
    u, scales, vt = np.linalg.svd(matrix[:3, :3])
    if scales[2] <= 0 or scales[0] / scales[2] > 1.01 or np.linalg.det(u @ vt) < 0:
        raise DatasetError(
            "pose", file, f"the transform_matrix of {name} is no rotation and translation", _AGAIN
        )
    matrix[:3, :3] = u @ vt
    matrix = matrix @ _FLIP
    pose = np.eye(4)
    pose[:3, :3] = matrix[:3, :3].T
    pose[:3, 3] = -pose[:3, :3] @ matrix[:3, 3]
    return pose


def image_path(root: Path, file_path: str) -> tuple[str, Path]:
    """Name and file of a frame; an extension that the writer left out is found."""
    name = Path(file_path.replace("\\", "/")).as_posix()
    path = root / name
    if path.suffix.lower() not in SUFFIXES and not path.is_file():
        for suffix in (".png", ".jpg", ".jpeg", ".JPG", ".PNG", ".webp"):
            if (candidate := path.with_name(path.name + suffix)).is_file():
                return f"{name}{suffix}", candidate
    return name, path


def read_views(file: Path, content: dict[str, Any], report: Report) -> list[View]:
    """The posed views that a file lists; those that make no sense are reported."""
    views = []
    for index, frame in enumerate(list_frames(file, content)):
        try:
            views.append(_view(file, index, frame, content))
        except DatasetError as error:
            report.error(error)
    return views


def _view(file: Path, index: int, frame: dict[str, Any], content: dict[str, Any]) -> View:
    name, path = image_path(file.parent, frame["file_path"])
    values = {**content, **frame}

    def get(key: str) -> float | None:
        return number(file, f"{key} of frame {index}", values[key]) if key in values else None

    def sized(width: int, height: int) -> Intrinsics:
        fx = get("fl_x")
        fy = get("fl_y")
        if fx is None and (angle := get("camera_angle_x")) is not None:
            fx = _focal(file, angle, width)
        if fy is None and (angle := get("camera_angle_y")) is not None:
            fy = _focal(file, angle, height)
        fx, fy = fx or fy, fy or fx
        if fx is None or fy is None:
            cause = f"{name} has neither fl_x nor camera_angle_x"
            raise DatasetError("intrinsics", file, cause, _AGAIN)
        cx, cy = get("cx"), get("cy")
        pinhole = (fx, fy, width / 2 if cx is None else cx, height / 2 if cy is None else cy)
        return _with_distortion(file, values, pinhole, get, width, height)

    width, height = get("w"), get("h")
    known = sized(int(width), int(height)) if width is not None and height is not None else None
    return View(name, path, known, opencv_pose(file, frame), sized)


def _focal(file: Path, angle: float, side: float) -> float:
    """Focal length in pixels from a full field of view in radians."""
    if not 0 < angle < math.pi:
        cause = f"field of view of {angle:g} radians is absurd"
        raise DatasetError("intrinsics", file, cause, "give camera_angle_x in radians")
    return 0.5 * side / math.tan(0.5 * angle)


def _with_distortion(file, values, pinhole, get, width: int, height: int) -> Intrinsics:
    model = str(values.get("camera_model", _FISHEYE if values.get("is_fisheye") else "OPENCV")).upper()
    k1, k2, k3, k4, p1, p2 = (get(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == _FISHEYE:
        return Intrinsics(_FISHEYE, (*pinhole, k1, k2, k3, k4), width, height)
    if model not in _PINHOLES:
        known = ", ".join(sorted({*_PINHOLES, _FISHEYE}))
        raise DatasetError("camera-model", file, f"unknown camera model {model!r}", f"use one of {known}")
    if k4:
        cause = f"radial coefficient k4 = {k4:g} with camera model {model} is not supported"
        raise DatasetError(
            "camera-model", file, cause, "undistort the photographs, or fit at most k1, k2, k3, p1, p2"
        )
    if k3:
        return Intrinsics("FULL_OPENCV", (*pinhole, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), width, height)
    return Intrinsics("OPENCV", (*pinhole, k1, k2, p1, p2), width, height)
