"""Models as they grow: what the mapper writes while it works, for whoever wants to watch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splat.core import DataError
from splat.data.intrinsics import MODELS

if TYPE_CHECKING:
    from torch import Tensor

    from splat.core import Camera

FOLDER = "snapshots"  # in process/
_KEPT = 2  # the newest one may be half written
_FOCAL_LENGTHS = {name: focals for name, _, focals in MODELS}


@dataclass(frozen=True)
class Snapshot:
    """A model at a moment: cameras without their distortion by name, points [P, 3] float32, colours [P, 3] uint8."""

    cameras: dict[str, Camera]
    points: Tensor
    colours: Tensor


def read(folder: Path) -> Snapshot:
    """The model in a folder.

    Raises:
        DataError: it is not there, or not whole.
    """
    import torch

    from splat.core import Camera
    from splat.data import colmap

    found, points = colmap.read_model(colmap.Model(folder, ".bin"))
    cameras = {}
    for _, image in sorted(found.images.items(), key=lambda item: item[1].name):
        taken = found.cameras[image.camera_id]
        focals = _FOCAL_LENGTHS[taken.model.name]
        if not focals:  # a panorama has no picture plane
            continue
        params = [float(value) for value in taken.params]
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        cameras[image.name] = Camera(
            int(taken.width),
            int(taken.height),
            params[0],
            params[focals - 1],
            params[focals],
            params[focals + 1],
            torch.from_numpy(pose),
            image.name,
        )
    xyz, rgb = points.xyz.astype(np.float32), np.ascontiguousarray(points.rgb)
    return Snapshot(cameras, torch.from_numpy(xyz), torch.from_numpy(rgb))


def newest(folder: Path, after: str = "") -> tuple[str, Snapshot] | None:
    """The newest whole one in process/snapshots, and its name; None where none is newer than the name `after`."""
    for path in reversed(_all(folder)):
        if path.name <= after:
            break
        try:
            return path.name, read(path)
        except (DataError, OSError):  # half written, or taken away by now
            continue
    return None


def prune(folder: Path) -> None:
    """Remove all but the newest."""
    for path in _all(folder)[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """By name, which is COLMAP's clock."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
