"""What lies behind everything: a far sphere in the colours that the pictures have in each direction.

A new view shows places that no photograph does; where nothing was begun there, it is black. A sphere behind the scene
shows the blurred colour of what lies in that direction instead, continued smoothly to directions in which no picture
looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from splat.data.scene import Points
from splat.data.stereo.floor import Plane
from splat.data.stereo.views import StereoView, pixel_rays, world_points

_CELLS = 16  # along the longer side of a picture, in which its colours are averaged
_BLUR = math.radians(4)  # within which directions count alike
_FAR = 2.0  # radius, in units of the distance of the farthest points from the middle of the cameras


def backdrop(
    views: Sequence[StereoView], depths: Sequence[Tensor], count: int, plane: Plane | None = None
) -> Points:
    """Points on a sphere around the cameras, evenly over all directions.

    Args:
        depths: [H, W] of each view, everywhere; far places count for more than near ones, as these hide what is behind.
        count: number of points.
        plane: a floor, on which lies what would be behind it.
    """
    middle = torch.stack([view.camera.position.double() for view in views]).mean(0)
    directions, colours, weights, far = [], [], [], 0.0
    for view, depth in zip(views, depths, strict=True):
        height, width = depth.shape
        step = max(height, width) / _CELLS
        size = (max(1, round(height / step)), max(1, round(width / step)))
        values = torch.cat([depth[None], depth[None] * view.image.permute(2, 0, 1)])
        mean = functional.adaptive_avg_pool2d(values, size)
        to_world = view.camera.camera_to_world.to(depth)
        ray = functional.normalize(pixel_rays(view.camera.resized(size[1], size[0]), depth.device), dim=-1)
        directions.append((ray @ to_world[:3, :3].T).reshape(-1, 3))
        colours.append((mean[1:] / mean[:1]).permute(1, 2, 0).reshape(-1, 3))
        weights.append(mean[0].reshape(-1))
        places = world_points(view.camera, depth)[::4, ::4].reshape(-1, 3).double().cpu()
        far = max(far, float((places - middle).norm(dim=1).quantile(0.99)))
    sown = even_directions(count).to(directions[0])
    angle = torch.acos((sown @ torch.cat(directions).T).clamp(-1, 1))
    weight = torch.cat(weights) * (angle + _BLUR) ** -4
    colour = weight @ torch.cat(colours) / weight.sum(1, keepdim=True)
    xyz = middle + _FAR * far * sown.double().cpu()
    if plane is not None:
        above, below = plane.height(middle), plane.height(xyz)
        share = torch.where(below < 0, above / (above - below), 1.0)
        xyz = middle + share[:, None] * (xyz - middle)
    return Points(xyz, (colour * 255 + 0.5).clamp(0, 255).to(torch.uint8).cpu())


def even_directions(count: int) -> Tensor:
    """[count, 3] float64 unit vectors on a golden spiral, with nearly equal areas each (Gonzalez 2010)."""
    number = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * number / count
    turn = math.pi * (1 + math.sqrt(5)) * number
    across = (1 - z * z).sqrt()
    return torch.stack([across * turn.cos(), across * turn.sin(), z], 1)
