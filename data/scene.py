"""What a reader returns: posed photographs that are decoded later, and points."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from splat.core import Camera


@dataclass(frozen=True)
class Points:
    """Structure-from-motion points.

    Attributes:
        xyz: [P, 3] float64, world units.
        rgb: [P, 3] uint8.
        error: [P] float32 mean reprojection error, pixels; or None.
        tracks: P tuples of the names of the frames that see each point; or None.
    """

    xyz: Tensor
    rgb: Tensor
    error: Tensor | None = None
    tracks: list[tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Frame:
    """One posed photograph, not yet decoded.

    Attributes:
        name: path relative to the image folder, with forward slashes.
        path: the file.
        camera: the pinhole camera of the undistorted photograph at full resolution; pose float64.
        distortion: what undistorts the photograph (data.undistort.Distortion), or None for a pinhole.
        mask_path: a mask image (0 = ignore the pixel), or None.
    """

    name: str
    path: Path
    camera: Camera
    distortion: Any | None = None
    mask_path: Path | None = None


@dataclass
class Scene:
    """A dataset: frames sorted by name, points and what the reader noticed.

    Attributes:
        root: the folder that was given; `name` is its last part.
        reader: name of the reader, e.g. "colmap".
        frames: sorted by name.
        points: or None.
        test_names: names held out by the dataset itself (Blender's test split), or None.
        warnings: one line each.
        notes: facts worth a line in the log (the model that was chosen, ...).
    """

    root: Path
    name: str
    reader: str
    frames: list[Frame]
    points: Points | None = None
    test_names: frozenset[str] | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
