"""What the checks of a dataset look at, and what several of them need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from splat.data.depth import source_camera
from splat.data.points import median_depth, scene_extent
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Scene

_POINTS = 20_000  # that are looked at: enough for shares and medians
_Value = TypeVar("_Value")


@dataclass
class Context:
    """What the checks look at.

    Attributes:
        scene: as far as it could be read.
        report: where findings go.
    """

    scene: Scene
    report: Report

    @cached_property
    def depth(self) -> float:
        """Median depth of the points, world units; 0 without points."""
        return median_depth([frame.camera for frame in self.scene.frames], self.scene.points)

    @cached_property
    def extent(self) -> float:
        return scene_extent([frame.camera for frame in self.scene.frames], self.depth)

    @cached_property
    def sightings(self) -> Sightings:
        return sightings(self.scene)

    def warn(self, code: str, message: str, remedy: str) -> None:
        """A warning about the dataset as a whole."""
        self.report.warn(code, f"{self.scene.root}: {message}", remedy)


@dataclass(frozen=True)
class Sightings:
    """Points in photographs, a row a sighting.

    Attributes:
        frames, points: [M] int64 numbers of the frame and of the point.
        places: [M, 2] float64 in [0, 1): where in the photograph as it was taken, in shares of its width and height.
        tracked: whether tracks tell that the points were seen; else they lie in the picture, hidden or not.
    """

    frames: np.ndarray
    points: np.ndarray
    places: np.ndarray
    tracked: bool

    def of(self, frame: int) -> slice:
        """Rows of a frame; rows are sorted by frame."""
        return slice(*np.searchsorted(self.frames, [frame, frame + 1]))


def sightings(scene: Scene) -> Sightings:
    """Where the points of a scene, or an even selection of them, lie in its photographs."""
    nothing = Sightings(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)), False)
    if scene.points is None or len(scene.points) == 0:
        return nothing
    chosen = np.arange(0, len(scene.points), -(-len(scene.points) // _POINTS))
    xyz, tracks = scene.points.xyz.numpy(), scene.points.tracks
    if tracks is not None and len(tracks.frames):
        owners, frames = tracks.points().numpy(), tracks.frames.numpy()
        kept = np.isin(owners, chosen)
        order = np.lexsort((owners[kept], frames[kept]))
        owners, frames = owners[kept][order], frames[kept][order]
        ends = np.searchsorted(frames, np.arange(len(scene.frames) + 1))
        candidates = [owners[ends[i] : ends[i + 1]] for i in range(len(scene.frames))]
    else:
        candidates = [chosen] * len(scene.frames)
    rows = []
    for number, (frame, points) in enumerate(zip(scene.frames, candidates, strict=True)):
        places = _places(frame, xyz[points])
        inside = ((places >= 0) & (places < 1)).all(1)
        rows.append((np.full(int(inside.sum()), number), points[inside], places[inside]))
    numbers, points, places = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Sightings(numbers, points, places, tracks is not None)


def _places(frame: Frame, xyz: np.ndarray) -> np.ndarray:
    """[P, 2] shares of the photograph's width and height; NaN behind the camera."""
    pose, source = frame.camera.world_to_camera.numpy(), source_camera(frame)
    local = xyz @ pose[:3, :3].T + pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        if frame.distortion is None:
            fx, fy, cx, cy = source.pinhole
            pixels = local[:, :2] / local[:, 2:] * (fx, fy) + (cx, cy)
        else:
            tangents = np.hypot(local[:, 0], local[:, 1]) / local[:, 2]
            pixels = np.asarray(source.colmap_camera().img_from_cam(local)).reshape(-1, 2)
            pixels[tangents > frame.distortion.radius] = np.nan
    pixels[~(local[:, 2] > 0)] = np.nan
    return pixels / (source.width, source.height)


def in_parallel(
    function: Callable[[Frame], _Value], frames: Iterable[Frame], report: Report
) -> Iterator[tuple[Frame, _Value]]:
    """The frames with what `function` makes of them, in order; a DatasetError of one goes to the report."""
    frames = list(frames)

    def guarded(frame: Frame) -> _Value | DatasetError:
        try:
            return function(frame)
        except DatasetError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for frame, value in zip(frames, pool.map(guarded, frames), strict=True):
            if isinstance(value, DatasetError):
                report.error(value)
            else:
                yield frame, value
