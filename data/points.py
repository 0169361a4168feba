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

FEW_VIEWS = 12
"""So many training views, or fewer, leave too little to structure from motion: they begin in their own ways."""


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


def focus(cameras: Sequence[Camera]) -> Tensor:
    """[3] float64: the point nearest to all optical axes, in the least-squares sense."""
    forward = torch.stack([camera.forward.double() for camera in cameras])
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    position = torch.stack([camera.position.double() for camera in cameras])
    # Parallel axes leave the distance open: the least change from the cameras' middle is taken.
    centre = position.mean(0)
    offset = (across @ (position - centre)[..., None])[..., 0].sum(0)
    return centre + torch.linalg.pinv(across.sum(0), rtol=1e-6, hermitian=True) @ offset


def shared_volume(cameras: Sequence[Camera], count: int, generator: torch.Generator) -> Tensor:
    """[count, 3] float64 points that at least two of the cameras see, between 0.3 and 3 times as far as what they
    look at; even over pixels and the logarithm of depth. Where views share too little, single views fill up."""
    middle = focus(cameras)
    position = torch.stack([camera.position.double() for camera in cameras])
    forward = torch.stack([camera.forward.double() for camera in cameras])
    ahead = ((middle - position) * forward).sum(1)
    distance = float(ahead.median())
    if distance <= 0:  # they look away from each other, or all the same way
        distance = 5 * float((position - position.mean(0)).norm(dim=1).max()) or 1.0
    shared: list[Tensor] = []
    single: list[Tensor] = []
    for _ in range(8):
        drawn = torch.rand(count, 4, generator=generator, dtype=torch.float64)
        owner = (drawn[:, 3] * len(cameras)).long()
        depth = distance * 0.3 * 10 ** drawn[:, 2]
        xyz, seen = torch.empty(count, 3, dtype=torch.float64), torch.zeros(count, dtype=torch.long)
        for number, camera in enumerate(cameras):
            mine = owner == number
            pixels = drawn[mine, :2] * torch.tensor([camera.width, camera.height])
            ray = torch.ones(int(mine.sum()), 3, dtype=torch.float64)
            ray[:, 0] = (pixels[:, 0] - camera.cx) / camera.fx
            ray[:, 1] = (pixels[:, 1] - camera.cy) / camera.fy
            to_world = camera.camera_to_world.double()
            xyz[mine] = (ray * depth[mine, None]) @ to_world[:3, :3].T + to_world[:3, 3]
        for camera in cameras:
            seen += in_view(camera, xyz)
        shared.append(xyz[seen >= 2])
        single.append(xyz[seen < 2])
        if sum(map(len, shared)) >= count:
            break
    return torch.cat([*shared, *single])[:count]


def in_view(camera: Camera, xyz: Tensor) -> Tensor:
    """[P] bool: which points [P, 3] lie in front of the camera and inside its picture."""
    pose = camera.world_to_camera.double()
    pixels = (xyz @ pose[:3, :3].T + pose[:3, 3]) @ camera.matrix.double().T
    inside = pixels[:, 2] > 0
    for axis, size in ((0, camera.width), (1, camera.height)):
        inside &= (pixels[:, axis] > 0) & (pixels[:, axis] < size * pixels[:, 2])
    return inside


def random_points(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    """Points of random colour: uniform in the volume of the cameras, 3 times their radius around their centre, or in
    the cube that the format promises (3DGS-MCMC, Kheradmand et al. 2024; Blender scenes: 1.3 around the origin). A
    few views hardly surround what they see: their points lie in what at least two of them show.

    Args:
        count: number of points.
        generator: of the run, CPU.

    Returns:
        Points in the dataset's recentred coordinates.
    """
    bounds = dataset.scene.bounds
    cameras = [dataset.camera(index) for index in dataset.train]
    if bounds is None and len(cameras) <= FEW_VIEWS:
        xyz = shared_volume(cameras, count, generator)
    else:
        if bounds is None:
            centre, radius = camera_radius(cameras)
            half = 3 * (radius if radius > 0 else dataset.extent)
        else:
            centre, half = -dataset.offset, bounds
        xyz = centre + half * (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1)
    rgb = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
    return Points(xyz, rgb)
