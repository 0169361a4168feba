"""Poses as other tools write them, to the [4, 4] float64 world-to-camera matrix of OpenCV's axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Camera axes of OpenGL (x right, y up, z backwards) in those of OpenCV, and back.
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def world_to_camera(camera_to_world: Any) -> np.ndarray:
    """The inverse of a camera-to-world matrix ([3, 4] or [4, 4]) whose camera axes are OpenCV's.

    Any value may be given: what is no matrix is refused. A uniform scale in the rotation is removed and small
    departures from a rotation are corrected: writers round.

    Raises:
        ValueError: the matrix is of another shape, not finite, or no rotation and translation.
    """
    try:
        matrix = np.array(camera_to_world, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("not a finite 4x4 matrix") from error
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("not a finite 4x4 matrix")
    u, scales, vt = np.linalg.svd(matrix[:3, :3])
    if scales[2] <= 0 or scales[0] / scales[2] > 1.01 or np.linalg.det(u @ vt) < 0:
        raise ValueError("no rotation and translation")
    pose = np.eye(4)
    pose[:3, :3] = (u @ vt).T
    pose[:3, 3] = -pose[:3, :3] @ matrix[:3, 3]
    return pose


def rotation_vector(vector: ArrayLike) -> np.ndarray:
    """[3, 3] from axis times angle in radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.asarray(vector, dtype=np.float64)).as_matrix()


def quaternion(xyzw: ArrayLike) -> np.ndarray:
    """[3, 3] from a quaternion, x y z w, of any length but zero.

    Raises:
        ValueError: it has no direction.
    """
    from scipy.spatial.transform import Rotation

    values = np.asarray(xyzw, dtype=np.float64)
    if not np.isfinite(values).all() or not 1e-3 < np.linalg.norm(values) < 1e3:
        raise ValueError("no quaternion")
    return Rotation.from_quat(values).as_matrix()
