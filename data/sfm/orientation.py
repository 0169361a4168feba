"""Turning a model upright by its cameras, or placing it on the Earth by GPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from splat.data.problems import DatasetError

_LEAST_GPS = 3  # positions that fix a similarity

# Which way is up in the stored pixels of each EXIF orientation (TIFF 6.0, tag 274), as x and y in the image (y down).
_UP = {1: (0, -1), 2: (0, -1), 3: (0, 1), 4: (0, 1), 5: (-1, 0), 6: (-1, 0), 7: (1, 0), 8: (1, 0)}


def upright(model: Any, orientations: dict[str, int]) -> np.ndarray:
    """[4, 4] the turn about the origin that takes the mean up direction of the cameras of `model` to -y.

    -y is up in COLMAP's convention of cameras, and in viewers of 3D Gaussians. It is the shortest such turn.
    """
    ups = []
    for identity in model.reg_image_ids():
        image = model.image(identity)
        up = np.array([*_UP[orientations.get(image.name, 1)], 0.0])
        ups.append(np.asarray(image.cam_from_world().rotation.matrix()).T @ up)
    mean = np.mean(ups, axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:
        return np.eye(4)  # cameras that look straight down from all sides: every direction is as good
    matrix = np.eye(4)
    matrix[:3, :3] = _shortest_turn(mean / length, np.array([0.0, -1.0, 0.0]))
    return matrix


def _shortest_turn(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[3, 3] the rotation by the smallest angle that takes one unit vector to the other (Rodrigues)."""
    axis, cosine = np.cross(source, target), float(source @ target)
    if cosine < -1 + 1e-12:  # half a turn about any axis across
        across = np.eye(3)[int(np.argmin(np.abs(source)))]
        across = np.cross(source, across)
        across /= np.linalg.norm(across)
        return 2 * np.outer(across, across) - np.eye(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def by_gps(
    model: Any, positions: dict[str, list[float]], data: Path, seed: int
) -> tuple[np.ndarray, list[float]]:
    """The similarity to metres east, north and up of the mean of `positions`; and that mean: latitude,
    longitude (degrees), altitude.

    Raises:
        DatasetError: too few photographs have a position, or these do not fit the model.
    """
    import pycolmap

    names = [
        image.name for image in map(model.image, sorted(model.reg_image_ids())) if image.name in positions
    ]
    remedy = "use --orient up, or photographs with GPS in their EXIF data"
    if len(names) < _LEAST_GPS:
        raise DatasetError("no-gps", data, f"only {len(names)} posed photographs have a GPS position", remedy)
    degrees = np.array([positions[name] for name in names], dtype=np.float64)
    origin = degrees.mean(0)
    local = np.asarray(pycolmap.GPSTransform().ellipsoid_to_enu(degrees, *origin))
    # GPS is good to some metres; a tenth of the spread where that is more.
    ransac = pycolmap.RANSACOptions(max_error=max(5.0, 0.1 * float(np.ptp(local, axis=0).max())))
    ransac.random_seed = seed
    found = pycolmap.align_reconstruction_to_locations(model, names, local, _LEAST_GPS, ransac)
    if found is None:
        raise DatasetError("no-gps", data, "the GPS positions do not fit the model", remedy)
    matrix = np.eye(4)
    matrix[:3] = found.matrix()
    return matrix, origin.tolist()


def apply(model: Any, matrix: np.ndarray) -> None:
    """Move a model by a similarity."""
    import pycolmap

    model.transform(pycolmap.Sim3d(matrix[:3]))
