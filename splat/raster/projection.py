"""Projection of Gaussians to the image plane, in plain torch: one line for each formula.

EWA splatting (Zwicker et al. 2001) with the conventions of 3DGS (Kerbl et al. 2023) and the antialiased
form of Mip-Splatting (Yu et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, sh
from splat.core.rotations import quat_to_matrix
from splat.raster.constants import ALPHA_MIN, EPS2D, FRUSTUM_MARGIN, NEAR, SH_OFFSET


@dataclass(frozen=True)
class Projected:
    """The M Gaussians in front of the near plane that are opaque enough to show, sorted by camera z.

    Attributes:
        index: [M] int64 positions in the scene; equal depths keep the scene's order.
        means2d: [M, 2] centres, pixels.
        conics: [M, 3] the inverse image-space covariance (xx, xy, yy), 1 / square pixels.
        covs2d: [M, 3] the image-space covariance after the low-pass filter (xx, xy, yy), square pixels.
        opacities: [M] opacities, after the compensation where the scene is antialiased.
        depths: [M] camera z of the centres, world units.
        colors: [M, 3] seen from the camera.
        limits: [M] the exponent sigma at which alpha falls to ALPHA_MIN; positive. No gradient.
    """

    index: Tensor
    means2d: Tensor
    conics: Tensor
    covs2d: Tensor
    opacities: Tensor
    depths: Tensor
    colors: Tensor
    limits: Tensor

    def select(self, keep: Tensor) -> Projected:
        """Those at `keep`, [M] bool or positions."""
        return Projected(**{name: value[keep] for name, value in vars(self).items()})


def project(gaussians: Gaussians, camera: Camera, sh_degree: int | None = None) -> Projected:
    """Projects the scene; differentiable in every parameter and in the camera's pose."""
    pose = camera.world_to_camera.to(gaussians.means)
    rotation, translation = pose[:3, :3], pose[:3, 3]

    in_front = (gaussians.means.detach() @ rotation.detach().T + translation.detach())[:, 2] >= NEAR
    index = torch.nonzero(in_front).squeeze(-1)
    scene = gaussians.select(index)
    points = scene.means @ rotation.T + translation
    depths = points[:, 2]

    # Columns of `axes` are the ellipsoid's half axes in the image plane: the covariance is axes axes^T.
    jacobian = _jacobian(points, camera)
    axes = jacobian @ rotation @ (quat_to_matrix(scene.quats) * scene.scales()[:, None, :])
    xx = (axes[:, 0] ** 2).sum(-1)
    xy = (axes[:, 0] * axes[:, 1]).sum(-1)
    yy = (axes[:, 1] ** 2).sum(-1)
    # By Cauchy-Binet the determinant is the sum of the squared 2x2 minors. Unlike xx yy - xy^2 this
    # cannot cancel for needles.
    minors = torch.linalg.cross(axes[:, 0], axes[:, 1])
    det = (minors**2).sum(-1)
    det_filtered = det + EPS2D * (xx + yy) + EPS2D**2
    covs2d = torch.stack([xx + EPS2D, xy, yy + EPS2D], -1)
    conics = torch.stack([yy + EPS2D, -xy, xx + EPS2D], -1) / det_filtered[:, None]

    opacities = scene.opacities()
    if scene.antialiased:
        flat = det <= 0  # seen exactly edge-on: nothing to see, and no slope of the root
        opacities = opacities * torch.sqrt(torch.where(flat, 0, det / det_filtered) + flat) * ~flat

    means2d = torch.stack(
        [
            camera.fx * points[:, 0] / depths + camera.cx,
            camera.fy * points[:, 1] / depths + camera.cy,
        ],
        -1,
    )
    position = -rotation.T @ translation
    directions = torch.nn.functional.normalize(scene.means - position, dim=-1)
    colors = torch.clamp_min(sh.evaluate(scene.sh, directions, sh_degree) + SH_OFFSET, 0)

    seen = opacities.detach() >= ALPHA_MIN
    limits = torch.log(torch.where(seen, opacities.detach() / ALPHA_MIN, 1.0))
    projected = Projected(index, means2d, conics, covs2d, opacities, depths, colors, limits)
    # An overflow in float32 (a scale of 1e19 and more) has no ellipse.
    seen &= torch.isfinite(conics.detach()).all(-1) & torch.isfinite(covs2d.detach()).all(-1)
    kept = torch.nonzero(seen).squeeze(-1)
    order = torch.argsort(depths.detach()[kept], stable=True)
    return projected.select(kept[order])


def _jacobian(points: Tensor, camera: Camera) -> Tensor:
    """[M, 2, 3] derivative of the projection at camera-space `points` [M, 3].

    Taken with x/z and y/z clamped to the widened frustum; the clamped ones have no slope.
    """
    x, y, z = points.unbind(-1)
    u = _clamp_to_frustum(x / z, camera.width, camera.fx, camera.cx)
    v = _clamp_to_frustum(y / z, camera.height, camera.fy, camera.cy)
    zero = torch.zeros_like(z)
    rows = [camera.fx / z, zero, -camera.fx * u / z, zero, camera.fy / z, -camera.fy * v / z]
    return torch.stack(rows, -1).unflatten(-1, (2, 3))


def _clamp_to_frustum(slope: Tensor, size: int, focal: float, centre: float) -> Tensor:
    """x/z (or y/z) kept within the view of `size` pixels, widened by a share of its half-width."""
    margin = FRUSTUM_MARGIN * size / (2 * focal)
    return torch.clamp(slope, -centre / focal - margin, (size - centre) / focal + margin)
