"""A pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in OpenCV's convention: +x right, +y down, +z forward.

    Pixel centres lie at +0.5; the principal point may be anywhere.

    Attributes:
        width, height: image size, pixels.
        fx, fy, cx, cy: focal lengths and principal point, pixels.
        world_to_camera: [4, 4] rigid transform; may require grad.
        name: the image's name, for messages.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    world_to_camera: Tensor
    name: str = ""

    @property
    def camera_to_world(self) -> Tensor:
        """[4, 4] inverse of world_to_camera (rigid: transpose and rotate back)."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        inverse = torch.eye(4, dtype=rotation.dtype, device=rotation.device)
        inverse[:3, :3] = rotation.T
        inverse[:3, 3] = -rotation.T @ translation
        return inverse

    @property
    def position(self) -> Tensor:
        """[3] centre of projection, world units."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    @property
    def forward(self) -> Tensor:
        """[3] unit viewing direction, world frame."""
        return self.world_to_camera[2, :3]

    def resized(self, width: int, height: int) -> Camera:
        """The same view sampled at another size; each axis is scaled on its own."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
        )

    def with_pose(self, world_to_camera: Tensor) -> Camera:
        return replace(self, world_to_camera=world_to_camera)

    def to(self, *args: Any, **kwargs: Any) -> Camera:
        return self.with_pose(self.world_to_camera.to(*args, **kwargs))
