"""What multi-view stereo takes and gives: posed pictures in, depth maps and a cloud out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.core import Camera


@dataclass(frozen=True)
class StereoView:
    """A posed picture.

    Attributes:
        camera: pinhole, at the size of the picture.
        image: [H, W, 3] float32 in [0, 1], on the device where the work is to be done.
        mask: [H, W] bool, false where nothing is to be matched; or None.
    """

    camera: Camera
    image: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class DepthMap:
    """Depth of one view.

    Attributes:
        depth: [H, W] float32 camera z at the pixel centres, world units; 0 where it is not known.
        confidence: [H, W] float32 in [0, 1]: how well the pictures agree there; 0 where depth is not known.
    """

    depth: Tensor
    confidence: Tensor


def pixel_rays(camera: Camera, device: torch.device | None = None) -> Tensor:
    """[H, W, 3] float32 camera coordinates of the pixel centres at depth 1."""
    x = (torch.arange(camera.width, device=device) + 0.5 - camera.cx) / camera.fx
    y = (torch.arange(camera.height, device=device) + 0.5 - camera.cy) / camera.fy
    ray = torch.ones(camera.height, camera.width, 3, device=device)
    ray[..., 0], ray[..., 1] = x, y[:, None]
    return ray


def relative_pose(source: Camera, reference: Camera) -> tuple[Tensor, Tensor]:
    """Rotation [3, 3] and translation [3], float64 on the CPU, from reference to source camera coordinates."""
    pose = source.world_to_camera.double().cpu() @ reference.camera_to_world.double().cpu()
    return pose[:3, :3], pose[:3, 3]


def projection(
    source: Camera, reference: Camera, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """A [3, 3] and b [3] float32: a point on ray r at inverse depth q projects to the pixel A r + b q (homogeneous)."""
    rotation, translation = relative_pose(source, reference)
    matrix = source.matrix.double().cpu()
    return (matrix @ rotation).float().to(device), (matrix @ translation).float().to(device)


def world_points(camera: Camera, depth: Tensor) -> Tensor:
    """[H, W, 3] float32 world coordinates of the pixel centres at `depth` [H, W]."""
    to_world = camera.camera_to_world.to(depth.device, torch.float32)
    local = pixel_rays(camera, depth.device) * depth[..., None]
    return local @ to_world[:3, :3].T + to_world[:3, 3]


def projected(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 2] pixels and [...] depth of world points [..., 3]; pixels of depth 0 are not finite."""
    pose = camera.world_to_camera.to(points)
    local = points @ pose[:3, :3].T + pose[:3, 3]
    z = local[..., 2]
    x = local[..., 0] / z * camera.fx + camera.cx
    y = local[..., 1] / z * camera.fy + camera.cy
    return torch.stack([x, y], -1), z


def cells(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[P] bool which of points [P, 3] a camera shows; of these [M] cells of the flattened picture and [M] depth."""
    pixels, z = projected(camera, points)
    size = pixels.new_tensor([camera.width, camera.height])
    shown = (z > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)
    column, row = pixels[shown].long().unbind(-1)
    return shown, row * camera.width + column, z[shown]


def sample(image: Tensor, pixels: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Values [C, ...] of `image` [C, H, W] at `pixels` [..., 2] (centres at +0.5); the border's outside of it."""
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], device=image.device, dtype=pixels.dtype)
    grid = (2 * pixels / size - 1).reshape(1, -1, 1, 2)
    found = torch.nn.functional.grid_sample(
        image[None], grid, mode=mode, padding_mode="border", align_corners=False
    )
    return found.reshape(image.shape[0], *pixels.shape[:-1])


def grey(views: Sequence[StereoView]) -> list[Tensor]:
    """[H, W] luma (Rec. 601) of each picture."""
    return [view.image @ view.image.new_tensor([0.299, 0.587, 0.114]) for view in views]
