"""Cameras of the browser and ours, and where to stand at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.rotations import quat_to_matrix

_SAMPLE = 20_000  # Gaussians that a guess about the whole scene looks at


@dataclass(frozen=True)
class Pose:
    """Where a browser's camera stands, as viser states it.

    Attributes:
        wxyz: [4] rotation camera to world, OpenCV axes.
        position: [3] world units.
        fov: vertical field of view, radians.
        look_at: [3] the point that it turns around.
        width, height: of the canvas, pixels.
    """

    wxyz: np.ndarray
    position: np.ndarray
    fov: float
    look_at: np.ndarray
    width: int
    height: int

    @staticmethod
    def of(camera: Any) -> Pose:
        """What a viser CameraHandle says now."""
        return Pose(
            np.array(camera.wxyz),
            np.array(camera.position),
            float(camera.fov),
            np.array(camera.look_at),
            int(camera.image_width),
            int(camera.image_height),
        )

    def camera(self, width: int, height: int, column: int = 0, columns: int = 1) -> Camera:
        """Our camera of the same view, sampled at width x height.

        With several columns, the picture of one of them: that many views of the same thing side by side.
        """
        rotation = quat_to_matrix(torch.from_numpy(self.wxyz).double())
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = -rotation.T @ torch.from_numpy(self.position).double()
        left, right = column * width // columns, (column + 1) * width // columns
        focal = 0.5 * height / math.tan(0.5 * self.fov)
        return Camera(right - left, height, focal, focal, (right - left) / 2, height / 2, pose.float())


def up_direction(cameras: Sequence[Camera]) -> Tensor:
    """[3] unit vector that points up in the world, from how photographs were held; -y where nothing tells.

    People hold cameras level: the right sides of all pictures lie in the horizontal plane, so up is the
    direction in which they spread least. Where the cameras all look one way, the plane is not determined
    and the mean of the pictures' own up directions decides alone; it also decides the sign.
    """
    if not cameras:
        return torch.tensor([0.0, -1.0, 0.0])
    axes = torch.stack([camera.world_to_camera[:3, :3].double() for camera in cameras])
    mean = -axes[:, 1].mean(0)
    if float(mean.norm()) < 1e-6:
        return torch.tensor([0.0, -1.0, 0.0])
    mean = mean / mean.norm()
    spread, directions = torch.linalg.eigh(axes[:, 0].T @ axes[:, 0] / len(cameras))
    level = directions[:, 0] * torch.sign(directions[:, 0] @ mean)
    determined = float(spread[1]) > 0.05 and float(spread[0]) < 0.2 * float(spread[1])
    agrees = float(level @ mean) > math.cos(math.radians(45))
    return (level if determined and agrees else mean).float()


def first_view(cameras: Sequence[Camera], gaussians: Gaussians | None, up: Tensor) -> Camera:
    """Where a visitor stands at first: at the first photograph, else in front of the scene."""
    if cameras:
        return cameras[0]
    centre, radius = bulk(gaussians.means) if gaussians is not None else (torch.zeros(3), 1.0)
    aside = torch.linalg.cross(up, torch.tensor([0.31, 0.22, 0.92]))
    return _from_outside(centre, radius, torch.linalg.cross(aside, up), up)


def overview(cameras: Sequence[Camera], points: Tensor, up: Tensor) -> tuple[Camera, Tensor]:
    """A view of all cameras and the bulk of the `points` [P, 3], from behind the cameras where these look one way;
    and the middle [3] of what it shows."""
    places = torch.stack([camera.position.float().cpu() for camera in cameras])
    forward = torch.stack([camera.forward.float().cpu() for camera in cameras]).mean(0)
    level = forward - (forward @ up) * up
    if float(level.norm()) < 0.3:  # they stand around the scene, or look down on it
        level = torch.linalg.cross(up, torch.tensor([0.31, 0.22, 0.92]))
    centre, radius = bulk(torch.cat([points.float().cpu(), places]))
    radius = max(radius, float((places - centre).norm(dim=1).max()))
    return _from_outside(centre, radius, -level, up), centre


def _from_outside(centre: Tensor, radius: float, level: Tensor, up: Tensor) -> Camera:
    """A ball seen whole from the direction `level` [3], a little from above."""
    fov = math.radians(50)
    direction = torch.nn.functional.normalize(torch.nn.functional.normalize(level, dim=0) + 0.35 * up, dim=0)
    return Camera.look_at(
        centre + direction * radius / math.sin(fov / 2),
        centre,
        up,
        width=960,
        height=540,
        field_of_view=2 * math.atan(math.tan(fov / 2) * 960 / 540),
    )


def bulk(means: Tensor) -> tuple[Tensor, float]:
    """Median [3] of the centres and the radius around it that holds four fifths of them; on the CPU."""
    if not len(means):
        return torch.zeros(3), 1.0
    some = means[:: max(1, len(means) // _SAMPLE)].float().cpu()
    centre = some.median(0).values
    return centre, max(1e-6, float((some - centre).norm(dim=1).quantile(0.8)))


def pivot(camera: Camera, gaussians: Gaussians | None) -> Tensor:
    """[3] the point that a view at `camera` turns around: as far ahead as what is there to see."""
    if gaussians is None or not len(gaussians):
        return camera.position + camera.forward
    some = gaussians.means[:: max(1, len(gaussians) // _SAMPLE)].float().cpu()
    pose = camera.world_to_camera.float().cpu()
    seen = some @ pose[:3, :3].T + pose[:3, 3]
    x = seen[:, 0] / seen[:, 2] * camera.fx + camera.cx
    y = seen[:, 1] / seen[:, 2] * camera.fy + camera.cy
    middle = (x - camera.width / 2).abs() < camera.width / 4
    middle &= (y - camera.height / 2).abs() < camera.height / 4
    depths = seen[:, 2][middle & (seen[:, 2] > 0.01)]
    distance = float(depths.median()) if len(depths) else bulk(gaussians.means)[1]
    return camera.position.float().cpu() + distance * camera.forward.float().cpu()
