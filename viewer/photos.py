"""A photograph as another camera at the same place would have taken it."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.core import Camera


def seen_from(photo: Tensor, taken: Camera, camera: Camera) -> tuple[Tensor, Tensor]:
    """The photograph resampled into `camera`, which must stand where it was taken; its direction, field of
    view and size may differ. Between two pinhole cameras with one centre this is a homography, so it needs
    no depth (Hartley and Zisserman, Multiple View Geometry, 8.4.2).

    Args:
        photo: [H, W, 3] uint8, `taken` by that camera.

    Returns:
        [h, w, 3] float in [0, 1], and [h, w] bool: where the photograph has anything to show.
    """
    device = photo.device
    turn = taken.world_to_camera[:3, :3].double() @ camera.world_to_camera[:3, :3].double().T
    map_back = (taken.matrix.double() @ turn @ torch.linalg.inv(camera.matrix.double())).to(device)
    y, x = torch.meshgrid(
        torch.arange(camera.height, device=device, dtype=torch.float64) + 0.5,
        torch.arange(camera.width, device=device, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    rays = torch.stack([x, y, torch.ones_like(x)], -1) @ map_back.T
    ahead = rays[..., 2] > 1e-9
    pixel = rays[..., :2] / rays[..., 2:].clamp_min(1e-9)
    size = torch.tensor([photo.shape[1], photo.shape[0]], device=device, dtype=torch.float64)
    inside = ahead & (pixel >= 0).all(-1) & (pixel <= size).all(-1)
    grid = (2 * pixel / size - 1).float()
    planes = photo.permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)
    return image[0].permute(1, 2, 0), inside
