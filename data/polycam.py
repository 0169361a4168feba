"""Polycam's raw data: keyframes/ with a json file a photograph, depth from LiDAR and its confidence.

Layout and conventions from Polycam's own description (github.com/PolyCam/polyform, README): t_ij is row i, column j
of the camera-to-world matrix in ARKit's axes (camera: right, up, backwards; world: y up, metres), depth is in
millimetres at a lower resolution, confidence 0 is not to be trusted. corrected_cameras and corrected_images, where
they are, are globally optimised and undistorted. The photographs of uncorrected captures are a little distorted,
by how much is not exported. That fx, fy, cx, cy belong to width x height is verified against the same description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from splat.data.depth import points_from_depth
from splat.data.frames import View, build_frames
from splat.data.intrinsics import Intrinsics
from splat.data.jsonfile import load_object, number
from splat.data.poses import OPENGL, world_to_camera
from splat.data.problems import DatasetError, Report
from splat.data.scene import DepthFile, Scene

_MILLI = 1e-3


class PolycamReader:
    """A capture exported as raw data (developer mode), or its keyframes folder."""

    name = "polycam"

    def sniff(self, path: Path) -> bool:
        return _cameras(_keyframes(path)) is not None

    def read(self, path: Path, report: Report) -> Scene:
        folder = _keyframes(path)
        cameras = _cameras(folder)
        assert cameras is not None
        corrected = cameras.name == "corrected_cameras"
        images = folder / ("corrected_images" if corrected else "images")
        if not corrected:
            message = f"{folder}: the capture was not optimised: poses are ARKit's, photographs are distorted"
            report.warn(
                "not-optimised", message, "process it again in Polycam with loop closure, if it drifts"
            )
        views = []
        for file in sorted(cameras.glob("*.json")):
            try:
                views.append(_view(file, images, folder))
            except DatasetError as error:
                report.error(error)
        frames = build_frames(path, views, report, what=f"{cameras.parent.name}/{cameras.name}")
        points = points_from_depth(frames, report)
        if points is None:
            message = f"{folder}: no depth maps come with it"
            report.warn("no-points", message, "random points are used; export the depth/ folder as well")
        root = folder.parent if folder.name == "keyframes" else folder
        return Scene(path, root.resolve().name, self.name, frames, points)


def _keyframes(path: Path) -> Path:
    return path / "keyframes" if (path / "keyframes").is_dir() else path


def _cameras(folder: Path) -> Path | None:
    """The folder of cameras to take: the optimised ones where their photographs are there as well."""
    for cameras, images in (("corrected_cameras", "corrected_images"), ("cameras", "images")):
        if (folder / images).is_dir() and any((folder / cameras).glob("*.json")):
            return folder / cameras
    return None


def _view(file: Path, images: Path, folder: Path) -> View:
    content = load_object(file)
    matrix = np.eye(4)
    for i in range(3):
        for j in range(4):
            matrix[i, j] = _value(file, content, f"t_{i}{j}")
    try:
        pose = OPENGL @ world_to_camera(matrix)
    except ValueError as error:
        raise DatasetError("pose", file, f"the pose is {error}", "export the capture again") from error
    width, height = int(_value(file, content, "width")), int(_value(file, content, "height"))
    pinhole = tuple(_value(file, content, key) for key in ("fx", "fy", "cx", "cy"))
    image = next((i for i in sorted(images.glob(f"{file.stem}.*"))), images / f"{file.stem}.jpg")
    depth, confidence = folder / "depth" / f"{file.stem}.png", folder / "confidence" / f"{file.stem}.png"
    trusted = confidence if confidence.is_file() else None
    return View(
        image.name,
        image,
        Intrinsics("PINHOLE", pinhole, width, height),
        pose,
        depth=DepthFile(depth, _MILLI, trusted) if (folder / "depth").is_dir() else None,
    )


def _value(file: Path, content: dict[str, Any], key: str) -> float:
    return number(file, key, content.get(key))
