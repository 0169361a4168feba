"""OpenSfM's reconstruction.json, and what OpenDroneMap makes of it.

Conventions from OpenSfM's documentation (doc/source/geometry.rst, dataset.rst): shots hold the rotation (axis times
angle) and translation from the world to the camera's axes (right, down, forwards); focal lengths and principal
points are in units of the longer side, from the image's centre; distortion is OpenCV's.
OpenDroneMap: opensfm/reconstruction.json in a whole project; in what it hands out, cameras.json with the cameras and
odm_report/shots.geojson with, for each shot, that rotation and the camera's position (ODM, opendm/shots.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.data.brown import brown
from splat.data.frames import View, build_frames
from splat.data.intrinsics import Intrinsics
from splat.data.jsonfile import begins_with, damaged, load_json, load_object, mapping, number, vector
from splat.data.locate import Photographs
from splat.data.poses import rotation_vector
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Points, Scene, Tracks

_PLACES = ("reconstruction.json", "opensfm/reconstruction.json", "odm_report/shots.geojson")


class OpensfmReader:
    """An OpenSfM or OpenDroneMap folder, or a reconstruction.json in one."""

    name = "opensfm"

    def sniff(self, path: Path) -> bool:
        return _file(path) is not None

    def read(self, path: Path, report: Report) -> Scene:
        file = _file(path)
        assert file is not None
        root = file.parent
        if root.name in ("opensfm", "odm_report"):
            root = root.parent
        photographs = Photographs(root)
        cameras_file = file
        if file.suffix == ".geojson":
            cameras_file = root / "cameras.json"
            cameras, shots = _geojson(file, cameras_file)
            reconstruction: dict[str, Any] = {}
        else:
            reconstruction = _largest(file, report)
            cameras = mapping(file, "cameras", reconstruction.get("cameras"))
            shots = mapping(file, "shots", reconstruction.get("shots"))
        views, names = [], {}
        for shot, content in shots.items():
            try:
                content = mapping(file, shot, content)
                identity = content.get("camera")
                if not isinstance(identity, str) or identity not in cameras:
                    raise damaged(file, f"{shot} refers to camera {identity!r}, which does not exist")
                camera = mapping(cameras_file, identity, cameras[identity])
                intrinsics = _intrinsics(cameras_file, identity, camera)
                name, image = photographs.find(shot)
                view = View(name, image, intrinsics, _pose(file, shot, content))
            except DatasetError as error:
                report.error(error)
                continue
            views.append(view)
            names[shot] = view.name
        frames = build_frames(root, views, report, what=file.relative_to(root).as_posix())
        points = _points(file, reconstruction.get("points"), frames, names, report)
        return Scene(path, root.resolve().name, self.name, frames, points)


def _file(path: Path) -> Path | None:
    """The file that holds the poses."""
    if path.is_dir():
        found = (path / place for place in _PLACES)
        return next((file for file in found if file.is_file()), None)
    return path if path.suffix == ".json" and begins_with(path, b"[") else None


def _largest(file: Path, report: Report) -> dict[str, Any]:
    """The reconstruction with most shots."""
    content = load_json(file)
    if not isinstance(content, list) or not content:
        raise damaged(file, "holds no list of reconstructions")
    sizes = [len(mapping(file, "shots", mapping(file, "a reconstruction", r).get("shots"))) for r in content]
    best = int(np.argmax(sizes))
    if len(content) > 1:
        message = (
            f"{file}: reconstruction {best} with {sizes[best]} shots is taken as the largest of {len(sizes)}"
        )
        report.note("model-chosen", message)
    return content[best]


def _geojson(file: Path, cameras_file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cameras, and shots as OpenSfM has them, from OpenDroneMap's report."""
    if not cameras_file.is_file():
        raise DatasetError(
            "model-incomplete", cameras_file, "no such file", "copy all of what OpenDroneMap made"
        )
    cameras = load_object(cameras_file)
    features = load_object(file).get("features")
    if not isinstance(features, list):
        raise damaged(file, "has no list of features")
    shots = {}
    for index, feature in enumerate(features):
        where = f"feature {index}"
        values = mapping(file, where, mapping(file, where, feature).get("properties"))
        name = values.get("filename")
        if not isinstance(name, str):
            raise damaged(file, f"{where} has no filename")
        rotation = vector(file, f"rotation of {name}", values.get("rotation"))
        centre = np.array(vector(file, f"translation of {name}", values.get("translation")))
        shift = (-rotation_vector(rotation) @ centre).tolist()
        camera = _camera_of(cameras_file, values, cameras, name)
        shots[name] = {"camera": camera, "rotation": rotation, "translation": shift}
    return cameras, shots


def _camera_of(file: Path, shot: dict[str, Any], cameras: dict[str, Any], name: str) -> str:
    """Shots of the report do not name their camera: the one of their size and focal length."""
    if len(cameras) == 1:
        return next(iter(cameras))
    for identity, camera in cameras.items():
        camera = mapping(file, identity, camera)
        focal = camera.get("focal", camera.get("focal_x"))
        known = (camera.get("width"), camera.get("height"), focal)
        if known == (shot.get("width"), shot.get("height"), shot.get("focal")):
            return identity
    raise damaged(file, f"has no camera of the size and focal length of {name}")


def _pose(file: Path, shot: str, content: dict[str, Any]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation_vector(vector(file, f"rotation of {shot}", content.get("rotation")))
    pose[:3, 3] = vector(file, f"translation of {shot}", content.get("translation"))
    return pose


def _intrinsics(file: Path, identity: str, camera: dict[str, Any]) -> Intrinsics:
    def get(key: str, default: float | None = 0.0) -> float:
        return number(file, f"{key} of camera {identity}", camera.get(key, default))

    kind = camera.get("projection_type")
    width, height = int(get("width", None)), int(get("height", None))
    side = max(width, height)
    focal = get("focal", None) if "focal" in camera else get("focal_x", None)
    pinhole = (
        focal * side,
        (get("focal_y") if "focal_y" in camera else focal) * side,
        get("c_x") * side + width / 2,
        get("c_y") * side + height / 2,
    )
    k1, k2, k3, k4 = (get(f"k{i}") for i in range(1, 5))
    if kind in ("perspective", "simple_radial", "radial", "brown"):
        return brown(pinhole, (k1, k2, k3, 0.0), (get("p1"), get("p2")), width, height)
    if kind in ("fisheye", "fisheye_opencv"):
        return Intrinsics("OPENCV_FISHEYE", (*pinhole, k1, k2, k3, k4), width, height)
    cause = f"camera {identity} is of type {kind!r}, which is not supported"
    raise DatasetError("camera-model", file, cause, "use the undistorted images and their reconstruction")


def _points(
    file: Path, content: Any, frames: list[Frame], names: dict[str, str], report: Report
) -> Points | None:
    if content is None or not mapping(file, "points", content):
        report.warn("no-points", f"{file}: no points come with it", "random points are used")
        return None
    xyz, rgb = [], []
    for identity, point in content.items():
        point = mapping(file, f"point {identity}", point)
        xyz.append(vector(file, f"coordinates of point {identity}", point.get("coordinates")))
        rgb.append(vector(file, f"color of point {identity}", point.get("color", [128, 128, 128])))
    colours = torch.tensor(rgb, dtype=torch.float64).round().clamp(0, 255).to(torch.uint8)
    numbers = {name: index for index, name in enumerate(frame.name for frame in frames)}
    shown = {shot: numbers[name] for shot, name in names.items() if name in numbers}
    rank = {identity: index for index, identity in enumerate(content)}
    tracks = _tracks(file.parent / "tracks.csv", rank, shown)
    return Points(torch.tensor(xyz, dtype=torch.float64), colours, tracks=tracks)


def _tracks(file: Path, rank: dict[str, int], shown: dict[str, int]) -> Tracks | None:
    """Which frames see which point, by tracks.csv: image, track, feature, ... between tabs; None without one."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = set()
    for line in lines:
        image, _, rest = line.partition("\t")
        point, frame = rank.get(rest.partition("\t")[0]), shown.get(image)
        if point is not None and frame is not None:
            pairs.add((point, frame))
    if not pairs:
        return None
    table = torch.tensor(sorted(pairs), dtype=torch.int64)
    counts = torch.bincount(table[:, 0], minlength=len(rank))
    return Tracks(torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), table[:, 1].contiguous())
