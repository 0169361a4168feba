"""Views of one another: points of a depth image, where they fall in another view, what is seen there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import Camera
from splat.core.rotations import (
    matrix_to_quat,
    quat_conjugate,
    quat_exp,
    quat_log,
    quat_multiply,
    quat_to_matrix,
)
from splat.raster.constants import NEAR

OPAQUE = 0.5  # alpha above which a depth is that of a surface


def pixel_centres(like: Tensor) -> tuple[Tensor, Tensor]:
    """[1, W] u and [H, 1] v of the pixel centres of an image [H, W, ...], pixels."""
    height, width = like.shape[:2]
    u = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    v = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    return u[None], v[:, None]


def unprojected(camera: Camera, depth: Tensor) -> Tensor:
    """[H, W, 3] world points at camera z `depth` [H, W] behind the pixel centres."""
    u, v = pixel_centres(depth)
    rays = torch.stack(torch.broadcast_tensors((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy), -1)
    local = torch.cat([rays * depth[..., None], depth[..., None]], -1)
    pose = camera.camera_to_world.to(depth)
    return local @ pose[:3, :3].T + pose[:3, 3]


def projected(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 2] pixels and [...] camera z of world `points` [..., 3]; meaningless where z is not positive."""
    pose = camera.world_to_camera.to(points)
    local = points @ pose[:3, :3].T + pose[:3, 3]
    z = local[..., 2]
    safe = z.clamp_min(NEAR)
    u = camera.fx * local[..., 0] / safe + camera.cx
    v = camera.fy * local[..., 1] / safe + camera.cy
    return torch.stack([u, v], -1), z


def inside(camera: Camera, pixels: Tensor, z: Tensor) -> Tensor:
    """[...] bool: in front of the camera and on its picture."""
    u, v = pixels.unbind(-1)
    return (z > NEAR) & (u >= 0) & (v >= 0) & (u <= camera.width) & (v <= camera.height)


def sampled(image: Tensor, pixels: Tensor) -> Tensor:
    """[H, W, C] values of `image` [h, w, C] at `pixels` [H, W, 2], bilinear, differentiable in both."""
    size = torch.tensor([image.shape[1], image.shape[0]], dtype=pixels.dtype, device=pixels.device)
    grid = 2 * pixels / size - 1
    values = functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None], padding_mode="border", align_corners=False
    )
    return values[0].permute(1, 2, 0)


def kept_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Mean of `values` [H, W] over the pixels of `kept` [H, W] bool; 0 where there is none."""
    return torch.where(kept, values, 0).sum() / kept.sum().clamp_min(1)


def baseline(cameras: Sequence[Camera]) -> float:
    """Median distance of a camera to the nearest one at another place, world units; 0 where there is none."""
    places = torch.stack([camera.position.double() for camera in cameras])
    distances = torch.cdist(places, places)
    distances[distances == 0] = torch.inf
    nearest = distances.amin(1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.median()) if len(nearest) else 0.0


def neighbours(cameras: Sequence[Camera]) -> list[list[int]]:
    """For each camera the positions of the others, nearest first."""
    places = torch.stack([camera.position.double() for camera in cameras])
    order = torch.cdist(places, places).argsort(dim=1, stable=True).tolist()
    return [[other for other in row if other != own] for own, row in enumerate(order)]


def between(first: Camera, second: Camera, share: float) -> Camera:
    """The pose `share` of the way from one camera to the other, with the first one's intrinsics and size."""
    a, b = first.camera_to_world, second.camera_to_world.to(first.world_to_camera)
    start = matrix_to_quat(a[:3, :3])
    turn = quat_log(quat_multiply(quat_conjugate(start), matrix_to_quat(b[:3, :3])))
    pose = torch.eye(4, dtype=a.dtype, device=a.device)
    rotation = quat_to_matrix(quat_multiply(start, quat_exp(share * turn)))
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ torch.lerp(a[:3, 3], b[:3, 3], share)
    return first.with_pose(pose)
