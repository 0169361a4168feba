"""Rigid and similarity transforms of whole scenes and of the cameras that see them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.core import sh
from splat.core.camera import Camera
from splat.core.gaussians import Gaussians
from splat.core.rotations import matrix_to_quat, quat_multiply


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation.

    Attributes:
        rotation: [3, 3] proper rotation, float64.
        translation: [3] float64, units of the target frame.
        scale: positive; 1 for a rigid transform.
    """

    rotation: Tensor
    translation: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        rotation = self.rotation
        off = rotation @ rotation.T - torch.eye(3, dtype=rotation.dtype, device=rotation.device)
        if float(off.abs().max()) > 1e-5 or float(torch.linalg.det(rotation)) < 0:
            raise ValueError(
                "Similarity: rotation must be a proper rotation (a mirrored scene has other harmonics)"
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Similarity: scale must be positive, got {self.scale}")

    @classmethod
    def identity(cls) -> Similarity:
        return cls(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))

    def points(self, points: Tensor) -> Tensor:
        """[..., 3] transformed points, computed in float64 and returned in their own type."""
        rotation, translation = self.rotation.to(points.device), self.translation.to(points.device)
        return (self.scale * (points.double() @ rotation.double().T) + translation).to(points.dtype)

    def inverse(self) -> Similarity:
        back = self.rotation.T
        return Similarity(back, -(back @ self.translation) / self.scale, 1 / self.scale)

    def after(self, first: Similarity) -> Similarity:
        """The transform that does `first` and then this one."""
        return Similarity(
            self.rotation @ first.rotation,
            self.scale * (self.rotation @ first.translation) + self.translation,
            self.scale * first.scale,
        )


def transform_gaussians(gaussians: Gaussians, transform: Similarity) -> Gaussians:
    """The scene moved as a whole: centres, rotations, scales and the harmonics' directions.

    Opacities, extras and the antialiasing flag stay. Seen by the camera of `transform_camera`, the picture
    is the same, as long as no centre comes to lie on the other side of the near plane, which is in world
    units.
    """
    rotation = transform.rotation.to(gaussians.device, torch.float64)
    turn = matrix_to_quat(rotation).to(gaussians.dtype)
    return replace(
        gaussians,
        means=transform.points(gaussians.means),
        quats=quat_multiply(turn.expand_as(gaussians.quats), gaussians.quats),
        log_scales=gaussians.log_scales + math.log(transform.scale),
        sh=sh.rotate(gaussians.sh, rotation),
    )


def transform_camera(camera: Camera, transform: Similarity) -> Camera:
    """The camera moved with the scene; depths become `scale` times what they were."""
    pose = camera.world_to_camera
    exact = pose.double()
    rotation = exact[:3, :3] @ transform.rotation.to(exact).T
    translation = transform.scale * exact[:3, 3] - rotation @ transform.translation.to(exact)
    moved = torch.cat([torch.cat([rotation, translation[:, None]], 1), exact[3:]])
    return camera.with_pose(moved.to(pose.dtype))
