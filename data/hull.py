"""Visual hull: the largest body whose outlines fit the silhouettes (Laurentini 1994)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import Camera
from splat.data.points import focus
from splat.data.scene import Points

_COARSE = 48
_MANY = 10
_FINE = 128  # cells along the longest side; GaussianObject (Yang et al. 2024) takes 200


def visual_hull(
    cameras: Sequence[Camera],
    images: Sequence[Tensor],
    silhouettes: Sequence[Tensor],
    bounds: tuple[Tensor, Tensor] | None = None,
    *,
    resolution: int = _FINE,
) -> Points:
    """Centres of the cells on the surface of the hull, coloured by the views that they face.

    A cell belongs to the hull where at least two views, and half of them, show it inside their silhouette and at most
    one outside: one faulty mask carves nothing away. With fewer than ten views none may, as they carve too little.

    Args:
        images: [H, W, 3] uint8.
        silhouettes: [H, W] bool, true on the object.
        bounds: lowest and highest corner [3] of a box around the object; by default the views' field around the
            point that they look at.

    Returns:
        Points; none where the silhouettes have no body in common.
    """
    forgiven = 1 if len(cameras) >= _MANY else 0
    low, high = bounds if bounds is not None else _field(cameras)
    coarse = _Grid(low.double(), high.double(), _COARSE)
    inside = coarse.inside(cameras, silhouettes, forgiven)
    if not bool(inside.any()):
        return Points(torch.empty(0, 3, dtype=torch.float64), torch.empty(0, 3, dtype=torch.uint8))
    found = coarse.centres()[inside]
    fine = _Grid(found.amin(0) - coarse.cell, found.amax(0) + coarse.cell, resolution)
    inside = fine.inside(cameras, silhouettes, forgiven)
    surface, normals = _surface(inside)
    xyz = fine.centres()[surface]
    return Points(xyz, _colours(xyz, normals, cameras, images, silhouettes))


class _Grid:
    """Cubic cells over a box, about `resolution` along its longest side."""

    def __init__(self, low: Tensor, high: Tensor, resolution: int) -> None:
        self.low = low
        self.cell = float((high - low).max()) / resolution
        self.counts = ((high - low) / self.cell).ceil().long().clamp_min(1).tolist()

    def centres(self) -> Tensor:
        """[X, Y, Z, 3] float64."""
        axes = [
            start + (torch.arange(count) + 0.5) * self.cell
            for start, count in zip(self.low, self.counts, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def inside(self, cameras: Sequence[Camera], silhouettes: Sequence[Tensor], forgiven: int) -> Tensor:
        """[X, Y, Z] bool: which cells belong to the hull."""
        slabs = []
        for slab in self.centres().float().split(8):  # a few megabytes at a time
            hits = torch.zeros(slab.shape[:3], dtype=torch.int32)
            misses = hits.clone()
            for camera, silhouette in zip(cameras, silhouettes, strict=True):
                column, row, shown = _pixels(camera, slab)
                on = silhouette[row, column]
                hits += shown & on
                misses += shown & ~on
            slabs.append((hits >= max(2, len(cameras) // 2)) & (misses <= forgiven))
        return torch.cat(slabs)


def _pixels(camera: Camera, xyz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Column, row and whether the picture shows it, for points [..., 3]."""
    pose = camera.world_to_camera.to(xyz.dtype)
    pixels = (xyz @ pose[:3, :3].T + pose[:3, 3]) @ camera.matrix.to(xyz.dtype).T
    z = pixels[..., 2].clamp_min(1e-9)
    x, y = pixels[..., 0] / z, pixels[..., 1] / z
    shown = (pixels[..., 2] > 0) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
    column = x.clamp(0, camera.width - 1).long()
    return column, y.clamp(0, camera.height - 1).long(), shown


def _field(cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """A cube around the point that the cameras look at, which their pictures just hold."""
    middle = focus(cameras)
    half = min(
        float((camera.position.double() - middle).norm())
        * 0.5
        * max(camera.width / camera.fx, camera.height / camera.fy)
        for camera in cameras
    )
    return middle - half, middle + half


def _surface(inside: Tensor) -> tuple[Tensor, Tensor]:
    """[X, Y, Z] bool cells of the body that touch the outside, and their outward unit normals [P, 3]."""
    padded = functional.pad(inside.float()[None, None], (1,) * 6)
    solid = -functional.max_pool3d(-padded, 3, 1)[0, 0]
    surface = inside & (solid < 1)
    blurred = functional.avg_pool3d(functional.pad(padded, (2,) * 6), 5, 1)[0, 0]
    slope = torch.stack([g[1:-1, 1:-1, 1:-1] for g in torch.gradient(blurred)], -1)[surface]
    return surface, -slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-9)


def _colours(
    xyz: Tensor,
    normals: Tensor,
    cameras: Sequence[Camera],
    images: Sequence[Tensor],
    silhouettes: Sequence[Tensor],
) -> Tensor:
    """[P, 3] uint8: the mean over the views, each by the square of the cosine under which it sees the surface."""
    total, weight = torch.zeros(len(xyz), 3), torch.zeros(len(xyz), 1)
    for camera, image, silhouette in zip(cameras, images, silhouettes, strict=True):
        column, row, shown = _pixels(camera, xyz)
        towards = camera.position.double() - xyz
        cosine = ((towards / towards.norm(dim=1, keepdim=True)).float() * normals).sum(1).clamp_min(0)
        share = (cosine.square() * (shown & silhouette[row, column]))[:, None] + 1e-6
        total += share * image[row, column]
        weight += share
    return (total / weight + 0.5).clamp(0, 255).to(torch.uint8)
