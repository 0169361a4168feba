"""What a reader returns: posed photographs that are decoded later, and points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from splat.core import Camera

if TYPE_CHECKING:
    from splat.data.undistort import Distortion


@dataclass(frozen=True)
class Tracks:
    """Which frames see which point, as one ragged array: point p is seen by frames[offsets[p]:offsets[p + 1]].

    Attributes:
        offsets: [P + 1] int64, rising from 0.
        frames: [M] int64 positions in Scene.frames; observations in frames that were left out are dropped.
    """

    offsets: Tensor
    frames: Tensor

    def of(self, point: int) -> Tensor:
        """Positions in Scene.frames of the frames that see `point`."""
        return self.frames[int(self.offsets[point]) : int(self.offsets[point + 1])]

    def points(self) -> Tensor:
        """[M] int64: the point of each observation, beside `frames`."""
        counts = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(torch.arange(len(counts)), counts)


@dataclass(frozen=True)
class Points:
    """Structure-from-motion points.

    Attributes:
        xyz: [P, 3] float64, world units.
        rgb: [P, 3] uint8.
        error: [P] float32 mean reprojection error, pixels; or None.
        tracks: the frames that see each point; or None.
    """

    xyz: Tensor
    rgb: Tensor
    error: Tensor | None = None
    tracks: Tracks | None = None

    def __len__(self) -> int:
        return self.xyz.shape[0]


@dataclass(frozen=True)
class Observations:
    """Where frames see points, a row an observation.

    Attributes:
        frames: [M] int64 positions in Scene.frames.
        points: [M] int64 number of the point; any numbers, equal where the point is the same.
        rays: [M, 2] float64 x/z and y/z in the frame's camera coordinates, free of lens distortion.
    """

    frames: Tensor
    points: Tensor
    rays: Tensor

    def __len__(self) -> int:
        return self.frames.shape[0]


@dataclass(frozen=True)
class DepthFile:
    """A depth map on disk: camera z of the photograph's pixels as they are stored, at a size of its own.

    Attributes:
        path: an image of 16 bits, or .npy; 0, negative or not finite where nothing is known.
        scale: world units of one stored unit.
        confidence: an image of the depth map's size, 0 where its values are not to be trusted; or None.
    """

    path: Path
    scale: float = 1.0
    confidence: Path | None = None


@dataclass(frozen=True)
class Frame:
    """One posed photograph, not yet decoded.

    Attributes:
        name: path relative to the image folder, with forward slashes.
        path: the file.
        camera: the pinhole camera of the undistorted photograph at full resolution; pose float64.
        distortion: what undistorts the photograph, or None for a pinhole.
        mask_path: a mask image (0 = ignore the pixel), or None.
        orientation: the EXIF orientation to apply after decoding; 1 leaves the pixels as they are stored.
        depth: a depth map that the format names for this photograph, or None.
        model: COLMAP's name of the camera model that the dataset gives.
    """

    name: str
    path: Path
    camera: Camera
    distortion: Distortion | None = None
    mask_path: Path | None = None
    orientation: int = 1
    depth: DepthFile | None = None
    model: str = "PINHOLE"

    @property
    def lens(self) -> str:
        """The camera model, and what becomes of its distortion, for people."""
        if self.distortion is not None:
            return f"{self.model}, undistorted in memory"
        return self.model if self.model.endswith("PINHOLE") else f"{self.model} without distortion"


@dataclass
class Scene:
    """A dataset: frames sorted by name, points and what the reader noticed.

    Attributes:
        root: the folder that was given; `name` is its last part.
        reader: name of the reader, e.g. "colmap".
        frames: sorted by name.
        points: or None.
        test_names: names held out by the dataset itself (Blender's test split), or None.
        bounds: half-size of the cube around the origin in which the format promises the object, or None.
        warnings: one line each.
        notes: facts worth a line in the log (the model that was chosen, ...).
        observe: reads where the given frames, by their positions, see the points; None where the format does not
            say it.
    """

    root: Path
    name: str
    reader: str
    frames: list[Frame]
    points: Points | None = None
    test_names: frozenset[str] | None = None
    bounds: float | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    observe: Callable[[Sequence[int]], Observations] | None = None
