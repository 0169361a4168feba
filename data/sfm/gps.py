"""Where photographs were taken, as their EXIF data say: what it tells of a model, and how it helps to find one.

GPS is good to some metres. That is nothing beside a vase, and much beside a walk through a street.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_LEAST = 3  # positions that fix a similarity
_SIGMA = 5.0  # metres, east and north; twice that in height
_TELLS = 50.0  # metres, ten deviations: positions on less ground tell nothing of a model's shape
AGREES = 10.0  # metres, two deviations: a model that is farther off in the mean has another shape


def positions(database: Path) -> dict[str, list[float]]:
    """{name: [latitude, longitude (degrees), altitude (metres)]} of the photographs that say where they were taken."""
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        names = {image.image_id: image.name for image in store.read_all_images()}
        priors = store.read_all_pose_priors()
    finally:
        store.close()
    found = {}
    for prior in priors:
        if prior.has_position() and prior.coordinate_system == pycolmap.PosePriorCoordinateSystem.WGS84:
            latitude, longitude, altitude = (float(v) for v in prior.position)
            altitude = altitude if np.isfinite(altitude) else 0.0
            found[names[prior.corr_data_id.id]] = [latitude, longitude, altitude]
    return dict(sorted(found.items()))


def local(database: Path) -> dict[str, np.ndarray]:
    """{name: [3] metres east, north and up of their mean}; empty where so few positions, or on so little ground, tell
    nothing."""
    import pycolmap

    found = positions(database)
    if len(found) < _LEAST:
        return {}
    degrees = np.array(list(found.values()))
    metres = np.asarray(pycolmap.GPSTransform().ellipsoid_to_enu(degrees, *degrees.mean(0)))
    if float(np.ptp(metres[:, :2], axis=0).max()) < _TELLS:
        return {}
    return dict(zip(found, metres, strict=True))


def off(model: Any, places: dict[str, np.ndarray]) -> float | None:
    """Mean distance of the photographs of a model from `places`, metres, after the similarity that fits best; None
    where too few of them have one."""
    import pycolmap

    images = [model.image(identity) for identity in sorted(model.reg_image_ids())]
    images = [image for image in images if image.name in places]
    if len(images) < _LEAST:
        return None
    source = np.array([image.projection_center() for image in images])
    target = np.array([places[image.name] for image in images])
    fit = pycolmap.estimate_sim3d(source, target)
    if fit is None:
        return None
    return float(np.linalg.norm((fit * source) - target, axis=1).mean())


def weigh(database: Path) -> None:
    """Give the positions in a database the precision of GPS: without one they would count as exact to a metre."""
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        for prior in store.read_all_pose_priors():
            if prior.has_position():
                prior.position_covariance = np.diag([_SIGMA**2, _SIGMA**2, (2 * _SIGMA) ** 2])
                store.update_pose_prior(prior)
    finally:
        store.close()
