"""The photographs' cameras as line segments, coloured by loss, and which of them a click meets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from splat.core import Camera
from splat.viewer.colours import stretched, turbo

SEGMENTS = 10  # a camera: four edges, the picture's four sides, two strokes that point up
_UNKNOWN = 0.6  # grey level of a camera without a loss
_CHOSEN = (1.0, 1.0, 1.0)


def corners(cameras: Sequence[Camera], depth: float) -> Tensor:
    """[F, 6, 3] world points of each camera: its place, the picture's corners (from the upper left, clockwise)
    at `depth`, and the tip of the mark above the upper side."""
    points = []
    for camera in cameras:
        left, right = -camera.cx / camera.fx, (camera.width - camera.cx) / camera.fx
        top, bottom = -camera.cy / camera.fy, (camera.height - camera.cy) / camera.fy
        tip = [(left + right) / 2, top - 0.3 * (bottom - top), 1]
        local = torch.tensor(
            [[0, 0, 0], [left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1], tip],
            dtype=torch.float64,
        )
        pose = camera.world_to_camera.detach().double().cpu()
        points.append((depth * local - pose[:3, 3]) @ pose[:3, :3])
    return torch.stack(points) if points else torch.zeros(0, 6, 3, dtype=torch.float64)


def segments(points: Tensor, hidden: Tensor | None = None) -> np.ndarray:
    """[F * SEGMENTS, 2, 3] float32 line segments of `corners` [F, 6, 3]; those of `hidden` ([F] bool) cameras
    have no length."""
    if hidden is not None:
        points = torch.where(hidden[:, None, None], points[:, :1], points)
    ends = torch.tensor(
        [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1], [1, 5], [5, 2]], dtype=torch.long
    )
    return points[:, ends].reshape(-1, 2, 3).float().numpy()


def colours(losses: Tensor, chosen: int | Tensor | None = None) -> np.ndarray:
    """[F * SEGMENTS, 2, 3] uint8 colours: blue where the loss is low, red where it is high, grey where there is
    none (NaN), white for the `chosen` camera (or [F] bool cameras)."""
    known = torch.isfinite(losses)
    # Neither end of the colour map: both are too dark for a thin line.
    value = 0.1 + 0.8 * stretched(losses.float(), known, 0.05, 0.95).clamp(0, 1)
    colour = torch.where(known[:, None], turbo(value.nan_to_num()), torch.tensor(_UNKNOWN))
    if chosen is not None:
        colour[chosen] = torch.tensor(_CHOSEN)
    # viser takes the colours of lines for linear light and encodes them for the screen.
    colour = colour.pow(2.2).mul(255).round().to(torch.uint8)
    return colour[:, None, None].expand(-1, SEGMENTS, 2, 3).reshape(-1, 2, 3).contiguous().numpy()


def depth_for(cameras: Sequence[Camera]) -> float:
    """How far the drawn pictures lie before their cameras: half the way to the next camera, as a median.

    Cameras at one place do not count, and a scene with one place has depth 0.1.
    """
    from scipy.spatial import cKDTree

    places = np.stack([camera.position.detach().double().cpu().numpy() for camera in cameras])
    places = np.unique(places.round(9), axis=0)
    if len(places) < 2:
        return 0.1
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    return 0.5 * float(np.median(nearest))


def too_near(points: Tensor, place: Tensor) -> Tensor:
    """[F] bool: seen from `place` [3] the camera of `corners` [F, 6, 3] would be all over the picture."""
    reach = 3 * (points[:, 1:5].mean(1) - points[:, 0]).norm(dim=1)
    return (points[:, 0] - place).norm(dim=1) < reach


def met(points: Tensor, origin: Sequence[float], direction: Sequence[float]) -> int | None:
    """The camera whose pyramid the ray meets first, or None.

    Args:
        points: [F, 6, 3] of `corners`.
        origin, direction: [3] of the ray, world units.
    """
    if not len(points):
        return None
    start = torch.tensor(origin, dtype=torch.float64)
    along = torch.tensor(direction, dtype=torch.float64)
    apex = points[:, 0]
    faces = []  # four sides and the picture as two triangles
    for a, b in ((1, 2), (2, 3), (3, 4), (4, 1)):
        faces.append(torch.stack([apex, points[:, a], points[:, b]], 1))
    faces.append(points[:, [1, 2, 3]])
    faces.append(points[:, [1, 3, 4]])
    distance = torch.stack([_triangle(face, start, along) for face in faces]).amin(0)
    best = int(distance.argmin())
    return best if bool(torch.isfinite(distance[best])) else None


def _triangle(corner: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """[F] distance along the ray to triangles [F, 3, 3], infinite where they are missed (Moeller and Trumbore,
    "Fast, Minimum Storage Ray/Triangle Intersection", 1997)."""
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    across = torch.linalg.cross(direction.expand_as(second), second)
    determinant = (first * across).sum(1)
    inverse = 1 / torch.where(determinant == 0, torch.inf, determinant)
    offset = origin - corner[:, 0]
    u = (offset * across).sum(1) * inverse
    turned = torch.linalg.cross(offset, first)
    v = (direction * turned).sum(1) * inverse
    t = (second * turned).sum(1) * inverse
    hit = (determinant != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    return torch.where(hit, t, torch.inf)
