"""A pinhole camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splat.core.checks import check_tensor
from splat.core.errors import DataError

# How far R R^T may be from the identity: poses written with four digits still pass.
_RIGID_TOLERANCE = 1e-3


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

    @classmethod
    def look_at(
        cls,
        position: Tensor,
        target: Tensor,
        up: Tensor,
        *,
        width: int,
        height: int,
        field_of_view: float,
        name: str = "",
    ) -> Camera:
        """A camera at `position` that sees `target` in the middle of the picture.

        Args:
            position, target: [3] world units.
            up: [3] direction that appears upright, of any length.
            field_of_view: angle across the longer side of the picture, radians.

        Raises:
            ValueError: position and target coincide, or `up` is along the view.
        """
        forward = target - position
        right = torch.linalg.cross(forward, up)
        if not float(forward.norm()) > 0 or float(right.norm()) <= 1e-6 * float(forward.norm() * up.norm()):
            raise ValueError("look_at: target must differ from position, and up from the viewing direction")
        forward = forward / forward.norm()
        right = right / right.norm()
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
        pose = torch.eye(4, dtype=rotation.dtype, device=rotation.device)
        pose[:3, :3] = rotation
        pose[:3, 3] = -rotation @ position
        focal = max(width, height) / (2 * math.tan(field_of_view / 2))
        return cls(width, height, focal, focal, width / 2, height / 2, pose, name)

    @property
    def matrix(self) -> Tensor:
        """[3, 3] intrinsic matrix K: camera coordinates to homogeneous pixels."""
        pose = self.world_to_camera
        rows = [[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]]
        return torch.tensor(rows, dtype=pose.dtype, device=pose.device)

    def validate(self) -> None:
        """Raises DataError, naming the camera, unless it can draw: size, focal lengths, a rigid pose.

        The principal point may be anywhere, but must be finite.
        """
        who = f"camera {self.name!r}" if self.name else "camera"
        if self.width < 1 or self.height < 1:
            raise DataError(
                f"{who}: the size is {self.width} x {self.height} pixels; both must be at least 1"
            )
        for name in ("fx", "fy"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{who}: {name} is {value}; a focal length is a positive number of pixels")
        for name in ("cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise DataError(f"{who}: {name} is {getattr(self, name)}; the principal point must be finite")
        check_tensor("world_to_camera", self.world_to_camera, (4, 4))
        pose = self.world_to_camera.detach().double().cpu()
        if not torch.isfinite(pose).all():
            raise DataError(f"{who}: the pose has values that are NaN or infinite: {pose.tolist()}")
        rotation = pose[:3, :3]
        off = float((rotation @ rotation.T - torch.eye(3, dtype=pose.dtype)).abs().max())
        if off > _RIGID_TOLERANCE or float(torch.linalg.det(rotation)) < 0:
            raise DataError(
                f"{who}: the pose's upper left 3x3 is not a rotation (R R^T differs from 1 by {off:.2g}, "
                f"determinant {float(torch.linalg.det(rotation)):.4g})"
            )
        if pose[3].tolist() != [0, 0, 0, 1]:
            raise DataError(f"{who}: the pose's last row is {pose[3].tolist()}, not [0, 0, 0, 1]")

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
