"""Which depths the other views' depths confirm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.core import Camera
from splat.data.stereo.views import DepthMap, StereoView, sample, world_points


@dataclass(frozen=True)
class Agreement:
    """What another view says of each pixel of a view.

    Attributes:
        agrees: [H, W] bool.
        pixels: [H, W, 2] long: column and row in the other view.
        points: [H, W, 3] the other view's own point there, world.
    """

    agrees: Tensor
    pixels: Tensor
    points: Tensor


def agreement(
    view: StereoView,
    depth: DepthMap,
    other: StereoView,
    other_depth: DepthMap,
    *,
    pixels: float,
    relative: float,
) -> Agreement:
    """Go to the other view with this depth and come back with its depth there (Schoenberger et al. 2016: the
    forward-backward reprojection error).

    Args:
        pixels: how far from where it left it may come back, pixels.
        relative: how far both depths may differ in this view, as a share.
    """
    camera, device = other.camera, depth.depth.device
    height, width = other_depth.depth.shape
    points = world_points(view.camera, depth.depth)
    seen, z = _project(points, camera)
    inside = (z > 0) & (seen > 0).all(-1) & (seen < seen.new_tensor([width, height])).all(-1)
    inside &= depth.depth > 0
    column = seen[..., 0].nan_to_num().long().clamp(0, width - 1)
    row = seen[..., 1].nan_to_num().long().clamp(0, height - 1)
    there = _interpolated(other_depth.depth, seen, relative)
    # The other view's point on the very ray: both views then speak of the same place.
    rays = torch.stack(
        [(seen[..., 0] - camera.cx) / camera.fx, (seen[..., 1] - camera.cy) / camera.fy, torch.ones_like(z)],
        -1,
    )
    to_world = camera.camera_to_world.to(device, torch.float32)
    theirs = (rays * there[..., None]) @ to_world[:3, :3].T + to_world[:3, 3]
    back, back_z = _project(theirs, view.camera)
    rows, columns = depth.depth.shape
    home = torch.stack(
        torch.meshgrid(
            torch.arange(columns, device=device) + 0.5, torch.arange(rows, device=device) + 0.5, indexing="xy"
        ),
        -1,
    )
    agrees = inside & (there > 0) & (back_z > 0)
    agrees &= (back - home).norm(dim=-1) < pixels
    agrees &= (back_z - depth.depth).abs() < relative * depth.depth
    return Agreement(agrees, torch.stack([column, row], -1), theirs)


def _project(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """[H, W, 2] pixels and [H, W] depth of world points."""
    pose = camera.world_to_camera.to(points.device, torch.float32)
    local = points @ pose[:3, :3].T + pose[:3, 3]
    z = local[..., 2]
    safe = torch.where(z.abs() < 1e-9, 1e-9, z)
    x = local[..., 0] / safe * camera.fx + camera.cx
    y = local[..., 1] / safe * camera.fy + camera.cy
    return torch.stack([x, y], -1), z


def _interpolated(depth: Tensor, pixels: Tensor, relative: float) -> Tensor:
    """Depth at pixels: bilinear in inverse depth where the four neighbours belong together, else the nearest."""
    inverse = torch.where(depth > 0, 1 / depth.clamp_min(1e-30), 0.0)
    nearest = sample(depth[None], pixels, mode="nearest")[0]
    smooth = sample(inverse[None], pixels)[0]
    smooth = torch.where(smooth > 0, 1 / smooth.clamp_min(1e-30), 0.0)
    return torch.where((smooth - nearest).abs() < relative * nearest, smooth, nearest)


def agreements(
    views: Sequence[StereoView],
    depths: Sequence[DepthMap],
    partners: Sequence[Sequence[int]],
    *,
    pixels: float,
    relative: float,
) -> list[dict[int, Agreement]]:
    """For each view what each of its partners says."""
    return [
        {
            other: agreement(
                views[i], depths[i], views[other], depths[other], pixels=pixels, relative=relative
            )
            for other in partners[i]
        }
        for i in range(len(views))
    ]
