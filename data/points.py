"""Extent of a scene, recentring of far ones, and points where structure from motion left none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from splat.core import Camera
from splat.data.scene import Points, Scene

if TYPE_CHECKING:
    from splat.data.dataset import Dataset

# float32 resolves 1.2e-7 of a coordinate's size: at 100 extents from the origin that is 1e-5 of the extent, about
# the smallest splats worth having. Farther away the scene is moved to the origin.
_FAR = 100.0


def camera_radius(cameras: Sequence[Camera]) -> tuple[Tensor, float]:
    """[3] float64 mean camera position and the largest distance from it, world units."""
    positions = torch.stack([camera.position.double() for camera in cameras])
    centre = positions.mean(0)
    return centre, float((positions - centre).norm(dim=1).max())


def median_depth(cameras: Sequence[Camera], points: Points | None) -> float:
    """Median depth of the points over the cameras that see them (in front of them, where tracks are not known);
    0 without points."""
    if points is None or len(points) == 0:
        return 0.0
    poses = torch.stack([camera.world_to_camera.double() for camera in cameras])
    axis, shift = poses[:, 2, :3], poses[:, 2, 3]
    tracks = points.tracks
    if tracks is not None and len(tracks.frames):
        xyz = points.xyz[tracks.points()]
        depth = (xyz * axis[tracks.frames]).sum(1) + shift[tracks.frames]
    else:
        depth = (points.xyz @ axis.T + shift).flatten()
    depth = depth[depth > 0]
    return float(depth.median()) if len(depth) else 0.0


def times_seen(cameras: Sequence[Camera], xyz: Tensor) -> int:
    """How often one of the points lies in the picture of one of the cameras, occlusion aside; of many cameras and
    points some hundred are looked at.

    Args:
        xyz: [P, 3] float64 world units.
    """
    xyz = xyz[:: max(1, len(xyz) // 1000)]
    total = 0
    for camera in cameras[:: max(1, len(cameras) // 100)]:
        pose = camera.world_to_camera.double()
        local = xyz @ pose[:3, :3].T + pose[:3, 3]
        front = local[local[:, 2] > 0]
        u = front[:, 0] / front[:, 2] * camera.fx + camera.cx
        v = front[:, 1] / front[:, 2] * camera.fy + camera.cy
        total += int(((u >= 0) & (u <= camera.width) & (v >= 0) & (v <= camera.height)).sum())
    return total


def scene_extent(cameras: Sequence[Camera], depth: float) -> float:
    """1.1 x the largest camera distance from their mean, at least 0.1 x the median point depth; 1 where both are 0."""
    extent = max(1.1 * camera_radius(cameras)[1], 0.1 * depth)
    return extent if extent > 0 else 1.0


def recentring(scene: Scene, extent: float) -> Tensor:
    """[3] float64: what to subtract from world coordinates so that float32 holds them; zero for most scenes."""
    centre, _ = camera_radius([frame.camera for frame in scene.frames])
    if float(centre.norm()) > _FAR * extent:
        return centre
    return torch.zeros(3, dtype=torch.float64)


def random_points(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    """Points of random colour, uniform in the volume of the cameras: 3 times their radius around their centre, or
    the cube that the format promises (3DGS-MCMC, Kheradmand et al. 2024; Blender scenes: 1.3 around the origin).

    Args:
        count: number of points.
        generator: of the run, CPU.

    Returns:
        Points in the dataset's recentred coordinates.
    """
    bounds = dataset.scene.bounds
    if bounds is None:
        cameras = [dataset.camera(index) for index in dataset.train]
        centre, radius = camera_radius(cameras)
        half = 3 * (radius if radius > 0 else dataset.extent)
    else:
        centre, half = -dataset.offset, bounds
    unit = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1
    rgb = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
    return Points(centre + half * unit, rgb)
