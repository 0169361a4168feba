"""What a COLMAP model says beyond its cameras, and how pycolmap gets to read it without harm.

pycolmap trusts the files: a truncated one is read as if the rest were there, or never comes to an end. So the files
are walked here first, and pycolmap reads a copy that has the cameras and the poses alone. That copy leaves out the
observations, the points (taken from the walk) and the rigs and frames (each image has its own pose besides): those
may disagree with each other in models that were edited by hand, which pycolmap refuses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.data.problems import DatasetError

AGAIN = "copy the model again, or run COLMAP's mapper again"


@dataclass(frozen=True)
class ModelImage:
    """identity and camera are COLMAP's ids; pose is quaternion wxyz and translation, world to camera."""

    identity: int
    pose: tuple[float, ...]
    camera: int
    name: str


@dataclass(frozen=True)
class ModelPoints:
    """Points as arrays: ids [P] uint64, xyz [P, 3] float64, rgb [P, 3] uint8, error [P] float64; their observations
    one after another: offsets [P + 1] int64, images [M] int64 (COLMAP's image ids)."""

    ids: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    error: np.ndarray
    offsets: np.ndarray
    images: np.ndarray


def damaged(path: Path, cause: str) -> DatasetError:
    """A file of a model that does not hold what it should."""
    return DatasetError("model-damaged", path, cause, AGAIN)


def check_images(path: Path, images: Sequence[ModelImage], cameras: set[int]) -> None:
    """Ids and names come once, cameras exist, poses are poses."""
    seen: set[int] = set()
    names: set[str] = set()
    for image in images:
        if not image.name or not image.name.isprintable():
            raise damaged(path, f"damaged: the name of image {image.identity} is {image.name!r}")
        if image.identity in seen:
            raise damaged(path, f"damaged: image {image.identity} comes twice")
        if image.camera not in cameras:
            raise damaged(
                path, f"damaged: image {image.name} refers to camera {image.camera}, which does not exist"
            )
        # The quaternion need not be of unit length, but near it.
        if not np.isfinite(image.pose).all() or not 1e-3 < math.hypot(*image.pose[:4]) < 1e3:
            raise damaged(path, f"damaged: the pose of {image.name} is not finite or has no rotation")
        if image.name in names:
            cause = f"lists the photograph {image.name} more than once"
            raise DatasetError("duplicate-name", path, cause, "remove one of them from the model")
        seen.add(image.identity)
        names.add(image.name)


def check_points(path: Path, points: ModelPoints) -> None:
    """Ids come once, positions are finite."""
    if not np.isfinite(points.xyz).all():
        raise damaged(path, "damaged: a point is not finite")
    ids = np.sort(points.ids)
    if (ids[1:] == ids[:-1]).any():
        raise damaged(path, "damaged: a point comes twice")
