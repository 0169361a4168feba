"""transforms.json as nerfstudio and instant-ngp write it.

Keys as in https://docs.nerf.studio/quickstart/data_conventions.html: masks are black where pixels are ignored; depth
maps hold camera z in thousandths of the poses' unit (nerfstudio's default depth_unit_scale_factor) unless the file
says otherwise. Poses stay as they are saved: applied_transform, which led to them from the original coordinates, is
not undone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.data.depth import points_from_depth
from splat.data.frames import View, build_frames
from splat.data.images import SUFFIXES
from splat.data.intrinsics import Intrinsics
from splat.data.jsonfile import AGAIN, begins_with, damaged, load_object, number
from splat.data.ply import read_points
from splat.data.points import times_seen
from splat.data.poses import OPENGL, world_to_camera
from splat.data.problems import DatasetError, Report
from splat.data.scene import DepthFile, Frame, Points, Scene

_FISHEYE = "OPENCV_FISHEYE"
_MILLI = 1e-3
_DEPTH_UNITS = ("depth_unit_scale_factor", "integer_depth_scale")  # nerfstudio's and instant-ngp's names
_PINHOLES = {"PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "PERSPECTIVE"}


class TransformsReader:
    """transforms.json: one file with poses, intrinsics shared or per frame."""

    name = "transforms"

    def sniff(self, path: Path) -> bool:
        file = _file(path)
        if not file.is_file() or file.suffix != ".json":
            return False
        return path.is_dir() or not begins_with(file, b"[")  # a list is OpenSfM's

    def read(self, path: Path, report: Report) -> Scene:
        file = _file(path)
        root = file.parent
        content = load_object(file)
        views = read_views(file, content, report)
        frames = build_frames(root, views, report, what=file.name)
        points = None
        if "ply_file_path" in content:
            points = read_points(root / str(content["ply_file_path"]), report)
            points = _placed(points, file, content, frames, report)
        if points is None:
            points = points_from_depth(frames, report)
        if points is None:
            message = f"{file}: no points come with it"
            report.warn(
                "no-points", message, "random points are used; name a point cloud in ply_file_path for better"
            )
        return Scene(path, root.resolve().name, self.name, frames, points)


def _file(path: Path) -> Path:
    return path / "transforms.json" if path.is_dir() else path


def list_frames(file: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The frames that a file lists, each an object with file_path and transform_matrix."""
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise damaged(file, 'has no list of "frames"')
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise damaged(file, f"frame {index} has no file_path")
    return frames


def opencv_pose(file: Path, frame: dict[str, Any]) -> np.ndarray:
    """[4, 4] float64 world-to-camera (OpenCV) from a camera-to-world transform_matrix (OpenGL).

    Raises:
        DatasetError: the matrix is not 4x4 (or 3x4), not finite or no rigid motion.
    """
    try:
        return OPENGL @ world_to_camera(frame.get("transform_matrix", ()))
    except ValueError as error:
        cause = f"the transform_matrix of {frame['file_path']} is {error}"
        raise DatasetError("pose", file, cause, AGAIN) from error


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
            raise DatasetError("intrinsics", file, cause, AGAIN)
        cx, cy = get("cx"), get("cy")
        pinhole = (fx, fy, width / 2 if cx is None else cx, height / 2 if cy is None else cy)
        return _with_distortion(file, values, pinhole, get, width, height)

    width, height = get("w"), get("h")
    known = sized(int(width), int(height)) if width is not None and height is not None else None
    mask = _beside(file, frame, "mask_path")
    depth = _beside(file, frame, "depth_file_path") or _beside(file, frame, "depth_path")
    units = [key for key in _DEPTH_UNITS if key in content]
    unit = number(file, units[0], content[units[0]]) if units else _MILLI
    return View(
        name,
        path,
        known,
        opencv_pose(file, frame),
        sized,
        mask_path=mask,
        depth=None if depth is None else DepthFile(depth, unit),
    )


def _beside(file: Path, frame: dict[str, Any], key: str) -> Path | None:
    """The path that a frame gives under `key`, relative to the file's folder; None where it gives none."""
    value = frame.get(key)
    return file.parent / value.replace("\\", "/") if isinstance(value, str) and value else None


def _placed(
    points: Points | None, file: Path, content: dict[str, Any], frames: list[Frame], report: Report
) -> Points | None:
    """The points in the coordinates of the poses.

    Early versions of nerfstudio saved them in the original coordinates, from which applied_transform leads to those
    of the poses; later ones apply it to the points as well. The file does not say which: taken is what the cameras
    see more of.
    """
    if points is None or "applied_transform" not in content or not frames:
        return points
    try:
        matrix = np.array(content["applied_transform"], dtype=np.float64)
        if matrix.shape not in ((3, 4), (4, 4)) or not np.isfinite(matrix).all():
            raise ValueError("not a finite 3x4 matrix")
    except (TypeError, ValueError) as error:
        cause = f"applied_transform is no 3x4 matrix ({error})"
        report.error(damaged(file, cause))
        return points
    transform = torch.from_numpy(matrix[:3])
    moved = replace(points, xyz=points.xyz @ transform[:, :3].T + transform[:, 3])
    cameras = [frame.camera for frame in frames]
    if times_seen(cameras, moved.xyz) <= times_seen(cameras, points.xyz):
        return points
    report.note("points-moved", f"{file}: applied_transform is applied to the points")
    return moved


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
