"""Cameras on a circle around what is to be seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splat.core.camera import Camera
from splat.core.paths import camera_at, looking


def orbit(cameras: list[Camera], count: int) -> list[Camera]:
    """`count` cameras on a circle around what `cameras` look at, at their mean distance and height.

    Size and field of view are those of the first camera. The axis of the circle is the cameras' mean up.
    """
    centre = focus(cameras)
    up = torch.nn.functional.normalize(-torch.stack([_axes(c)[:, 1] for c in cameras]).mean(0), dim=0)
    offsets = torch.stack([c.position.double() for c in cameras]) - centre
    heights = offsets @ up
    radius = float((offsets - heights[:, None] * up).norm(dim=1).mean())
    start = offsets[0] - heights[0] * up
    start = torch.nn.functional.normalize(start if float(start.norm()) > 1e-9 else torch.roll(up, 1), dim=0)
    side = torch.linalg.cross(up, start)
    out = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        around = math.cos(angle) * start + math.sin(angle) * side
        position = centre + radius * around + heights.mean() * up
        like = cameras[0]
        out.append(
            camera_at(
                looking(position, centre, up),
                position,
                like.width,
                like.height,
                (like.fx * like.fy) ** 0.5,
                f"{i:05d}",
            )
        )
    return out


def around(means: Tensor, width: int, height: int) -> list[Camera]:
    """Four cameras around a scene of which nothing but the [N, 3] means is known; -y is taken for up."""
    centre = means.double().median(0).values
    radius = float((means.double() - centre).norm(dim=1).quantile(0.8)) if len(means) else 1.0
    fov = math.radians(50)
    distance = radius / math.sin(fov / 2)
    focal = 0.5 * height / math.tan(fov / 2)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    out = []
    for i, (x, z) in enumerate(((0, -1), (1, 0), (0, 1), (-1, 0))):
        position = centre + distance * torch.tensor([x, -0.35, z], dtype=torch.float64)
        out.append(camera_at(looking(position, centre, up), position, width, height, focal, f"{i:05d}"))
    return out


def focus(cameras: list[Camera]) -> Tensor:
    """[3] the point nearest to all viewing rays, in the least-squares sense.

    Where the rays are almost parallel the point is ill-defined: the system is damped towards the point
    at the cameras' mean, moved forward by their spread.
    """
    positions = torch.stack([c.position.double() for c in cameras])
    forwards = torch.stack([c.forward.double() for c in cameras])
    mean = positions.mean(0)
    spread = float((positions - mean).norm(dim=1).max()) or 1.0
    guess = mean + spread * torch.nn.functional.normalize(forwards.mean(0), dim=0)
    across = torch.eye(3, dtype=torch.float64) - forwards[:, :, None] * forwards[:, None, :]
    damping = 1e-3 * len(cameras) * torch.eye(3, dtype=torch.float64)
    system = across.sum(0) + damping
    right = (across @ positions[:, :, None]).sum(0)[:, 0] + damping @ guess
    return torch.linalg.solve(system, right)


def _axes(camera: Camera) -> Tensor:
    """[3, 3] right, down and forward of a camera in the world, columns."""
    return camera.world_to_camera[:3, :3].T.double()
