"""Folders of an RGB-D camera with its path: photographs, depth maps, a list of poses.

The file formats of the TUM RGB-D benchmark (cvg.cit.tum.de, "File Formats"): groundtruth.txt has lines "timestamp tx
ty tz qx qy qz qw", camera to world, x right, y down, z forwards; rgb.txt and depth.txt lines "timestamp file";
times are matched as the benchmark's associate.py does, within 0.02 s; depth 5000 is one metre, and photographs and
depth maps match pixel by pixel. Or a pose.txt without times, a line a photograph in the order of the names, with
depth in thousandths (slambook2, on whose five frames it was verified that depth maps agree across views). The files
do not hold the intrinsics: they stand in intrinsics.txt, in OpenCV's pixels, whose centres are whole numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from splat.data.depth import points_from_depth
from splat.data.frames import View, build_frames
from splat.data.images import list_images
from splat.data.intrinsics import Intrinsics
from splat.data.poses import quaternion, world_to_camera
from splat.data.problems import DatasetError, Report
from splat.data.scene import DepthFile, Scene

_POSES = ("groundtruth.txt", "pose.txt", "poses.txt", "trajectory.txt")
_COLOUR = ("rgb", "color", "colour", "images")
_DEPTH = ("depth", "depths")
_INTRINSICS = ("intrinsics.txt", "camera-intrinsics.txt", "camera.txt", "calibration.txt")
_TIME = 0.02  # seconds, as associate.py
_TUM_UNITS, _UNITS = 5000.0, 1000.0  # stored units in a world unit
_ASK = "write one line into it: fx fy cx cy, in pixels, and the depth of one unit ({units:g})"


class RgbdReader:
    """A folder with colour and depth images, poses and intrinsics."""

    name = "rgbd"

    def sniff(self, path: Path) -> bool:
        return all(_first(path, names) is not None for names in (_POSES, _COLOUR, _DEPTH))

    def read(self, path: Path, report: Report) -> Scene:
        poses_file, colour, depth = (_first(path, names) for names in (_POSES, _COLOUR, _DEPTH))
        assert poses_file is not None
        assert colour is not None
        assert depth is not None
        rows = _numbers(poses_file, (7, 8))
        timed = rows.shape[1] == 8
        pinhole, units = _intrinsics(path, _TUM_UNITS if timed else _UNITS)
        if timed:
            found = _by_time(path, rows, colour, depth)
        else:
            found = _in_order(poses_file, rows, colour, depth)

        def sized(width: int, height: int) -> Intrinsics:
            return Intrinsics("PINHOLE", pinhole, width, height)

        views = []
        for row, photograph, depth_map in found:
            camera_to_world = np.eye(4)
            try:
                camera_to_world[:3, :3], camera_to_world[:3, 3] = quaternion(row[3:]), row[:3]
                pose = world_to_camera(camera_to_world)
            except ValueError as error:
                cause = f"the pose of {photograph.name} is {error}"
                report.error(DatasetError("pose", poses_file, cause, "export the path again"))
                continue
            map_file = None if depth_map is None else DepthFile(depth_map, 1 / units)
            views.append(View(photograph.name, photograph, None, pose, sized, depth=map_file))
        frames = build_frames(path, views, report, what=poses_file.name)
        points = points_from_depth(frames, report)
        if points is None:
            report.warn("no-points", f"{depth}: holds no depth", "random points are used")
        return Scene(path, path.resolve().name, self.name, frames, points)


def _first(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((path / name for name in names if (path / name).exists()), None)


def _lines(file: Path) -> list[list[str]]:
    """Words of the lines that are neither empty nor comments."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DatasetError("rgbd-damaged", file, "cannot be read", "change its permissions") from error
    return [line.replace(",", " ").split() for line in lines if line.strip() and not line.startswith("#")]


def _numbers(file: Path, widths: tuple[int, ...]) -> np.ndarray:
    """[N, one of widths] float64."""
    again = "export the path again"
    rows = _lines(file)
    if not rows or len(rows[0]) not in widths or any(len(row) != len(rows[0]) for row in rows):
        wanted = " or ".join(map(str, widths))
        raise DatasetError("rgbd-damaged", file, f"is no table with {wanted} numbers a line", again)
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DatasetError("rgbd-damaged", file, f"holds what is no number ({error})", again) from error
    if not np.isfinite(table).all():
        raise DatasetError("rgbd-damaged", file, "holds numbers that are not finite", again)
    return table


def _intrinsics(path: Path, units: float) -> tuple[tuple[float, float, float, float], float]:
    """fx, fy, cx, cy with pixel centres at +0.5, and the stored units of depth in a world unit."""
    file = _first(path, _INTRINSICS)
    remedy = _ASK.format(units=units)
    if file is None:
        cause = "no such file: nothing tells the camera's focal length and principal point"
        raise DatasetError("intrinsics", path / _INTRINSICS[0], cause, remedy)
    words = [word for line in _lines(file) for word in line]
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DatasetError("intrinsics", file, f"holds what is no number ({error})", remedy) from error
    if len(values) in (9, 16):  # a matrix
        side = 3 if len(values) == 9 else 4
        values = [values[0], values[side + 1], values[2], values[side + 2]]
    if len(values) not in (4, 5) or not np.isfinite(values).all() or values[-1] <= 0:
        raise DatasetError("intrinsics", file, "does not hold fx fy cx cy, or a 3x3 matrix", remedy)
    fx, fy, cx, cy = values[:4]
    return (fx, fy, cx + 0.5, cy + 0.5), values[4] if len(values) == 5 else units


def _in_order(
    file: Path, rows: np.ndarray, colour: Path, depth: Path
) -> list[tuple[np.ndarray, Path, Path | None]]:
    """Each pose with the photograph of the same rank, and the depth map of that one's name."""
    photographs = sorted(list_images(colour), key=_natural)
    if len(photographs) != len(rows):
        cause = f"has {len(rows)} poses for {len(photographs)} photographs in {colour.name}/"
        raise DatasetError(
            "rgbd-damaged", file, cause, "give a line a photograph, in the order of their names"
        )
    maps = {item.stem: item for item in _maps(depth)}
    if not maps.keys() & {item.stem for item in photographs} and len(maps) == len(photographs):
        ordered = sorted(maps.values(), key=_natural)
        return list(zip(rows, photographs, ordered, strict=True))
    return [(row, item, maps.get(item.stem)) for row, item in zip(rows, photographs, strict=True)]


def _by_time(
    path: Path, rows: np.ndarray, colour: Path, depth: Path
) -> list[tuple[np.ndarray, Path, Path | None]]:
    """Each photograph with the pose and the depth map nearest in time."""
    photographs, maps = _times(path / "rgb.txt", colour), _times(path / "depth.txt", depth)
    order = np.argsort(rows[:, 0], kind="stable")
    rows = rows[order]
    found: list[tuple[np.ndarray, Path, Path | None]] = []
    map_times = np.array([time for time, _ in maps])
    for time, photograph in photographs:
        pose, near = _nearest(rows[:, 0], time), _nearest(map_times, time)
        if pose is not None:
            found.append((rows[pose, 1:], photograph, None if near is None else maps[near][1]))
    if not found:
        cause = f"no photograph was taken within {_TIME} s of a pose"
        raise DatasetError(
            "rgbd-damaged", path, cause, "give the times of rgb.txt and of the poses by one clock"
        )
    return found


def _times(listing: Path, folder: Path) -> list[tuple[float, Path]]:
    """Time and file of each image, by the list beside the folder or by the files' names; rising."""
    if listing.is_file():
        pairs = [(row[0], listing.parent / row[1]) for row in _lines(listing) if len(row) >= 2]
    else:
        pairs = [(file.stem, file) for file in _maps(folder)]
    try:
        found = sorted((float(time), file) for time, file in pairs)
    except ValueError as error:
        source = listing if listing.is_file() else folder
        remedy = f"list them as `timestamp file` in {listing}"
        raise DatasetError("rgbd-damaged", source, f"has no times ({error})", remedy) from error
    return [(time, file) for time, file in found if np.isfinite(time)]


def _nearest(times: np.ndarray, time: float) -> int | None:
    """Which of the rising times is nearest, if near enough."""
    if len(times) == 0:
        return None
    at = int(np.searchsorted(times, time))
    best = min(
        (at - 1, at), key=lambda index: abs(times[index] - time) if 0 <= index < len(times) else np.inf
    )
    return best if abs(times[best] - time) <= _TIME else None


def _maps(folder: Path) -> list[Path]:
    """Images and arrays in a folder."""
    return [*list_images(folder), *sorted(folder.glob("*.npy"))]


def _natural(file: Path) -> list[tuple[int, int | str]]:
    """So that 10.png comes after 9.png."""
    parts = re.split(r"(\d+)", file.stem)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
