"""Points from what some views see of them, and from nothing else: known poses, linear start, robust refinement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from splat.core import Camera
from splat.data.scene import Observations, Points, Tracks

# What COLMAP's mapper keeps (filter_max_reproj_error, filter_min_tri_angle).
MAX_ERROR = 4.0
MIN_ANGLE = math.radians(1.5)

_ROUNDS = 10  # of Gauss-Newton; from the linear solution it converges in three to five


def triangulate(
    observations: Observations,
    cameras: Sequence[Camera],
    *,
    max_error: float = MAX_ERROR,
    min_angle: float = MIN_ANGLE,
) -> Points:
    """Points that at least two views agree on.

    The direct linear solution (Hartley and Zisserman 2004, section 12.2), then Gauss-Newton on the reprojection
    error under Cauchy weights, then again on the observations within `max_error` of the outcome.

    Args:
        observations: at most one of a point in a frame.
        cameras: of every frame that is observed in, by its position; float64 poses.
        max_error: largest distance of an observation from the point's projection, pixels of the camera.
        min_angle: smallest angle that two rays to a point must span, radians.

    Returns:
        Points by rising number, with mean error and tracks of the observations that agree; colours are zero.
    """
    order = torch.argsort(observations.points * (len(cameras) + 1) + observations.frames)
    frames, rays = observations.frames[order], observations.rays[order].double()
    _, owner = torch.unique_consecutive(observations.points[order], return_inverse=True)
    count = int(owner[-1]) + 1 if len(owner) else 0

    poses = torch.stack([camera.world_to_camera.double() for camera in cameras])
    centres = torch.stack([camera.position.double() for camera in cameras])
    used = torch.unique(frames)
    origin = centres[used].mean(0) if len(used) else centres.mean(0)
    poses = poses.clone()
    poses[:, :3, 3] += poses[:, :3, :3] @ origin  # coordinates around the cameras: well conditioned anywhere
    focal = torch.tensor([[camera.fx, camera.fy] for camera in cameras], dtype=torch.float64)

    problem = _Problem(owner, count, poses[frames], rays, focal[frames])
    xyz = problem.linear()
    xyz = problem.refined(xyz, lambda error: 1 / (1 + (2 * error / max_error) ** 2))
    for _ in range(2):  # what the second fit no longer agrees with leaves the point too
        error, depth = problem.errors(xyz)
        agrees = (error < max_error) & (depth > 0)
        seen = torch.bincount(owner[agrees], minlength=count)
        agrees &= seen[owner] >= 2
        problem = problem.only(agrees)
        owner, frames = problem.owner, frames[agrees]
        xyz = problem.refined(xyz, torch.ones_like)
    error, depth = problem.errors(xyz)
    wrong = torch.bincount(owner[~((error < max_error) & (depth > 0))], minlength=count) > 0
    toward = xyz[owner] - (centres - origin)[frames]
    angle = _widest(owner, count, toward / toward.norm(dim=1, keepdim=True))
    kept = (angle >= min_angle) & ~wrong & xyz.isfinite().all(1)

    counts = torch.bincount(owner, minlength=count)
    mean_error = torch.zeros(count, dtype=torch.float64).index_add_(0, owner, error) / counts.clamp_min(1)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts[kept].cumsum(0)])
    return Points(
        xyz=xyz[kept] + origin,
        rgb=torch.zeros(int(kept.sum()), 3, dtype=torch.uint8),
        error=mean_error[kept].float(),
        tracks=Tracks(offsets, frames[kept[owner]]),
    )


class _Problem:
    """Observations of `count` points: owner [M], poses [M, 4, 4], rays [M, 2], focal lengths [M, 2]."""

    def __init__(self, owner: Tensor, count: int, poses: Tensor, rays: Tensor, focal: Tensor) -> None:
        self.owner, self.count, self.poses, self.rays, self.focal = owner, count, poses, rays, focal

    def only(self, rows: Tensor) -> _Problem:
        return _Problem(self.owner[rows], self.count, self.poses[rows], self.rays[rows], self.focal[rows])

    def linear(self) -> Tensor:
        """[P, 3] minimisers of the algebraic error."""
        rows = self.rays[:, :, None] * self.poses[:, 2:3] - self.poses[:, :2]  # [M, 2, 4]
        normal = self._sum(rows.mT @ rows)
        homogeneous = torch.linalg.eigh(normal).eigenvectors[:, :, 0]
        w = homogeneous[:, 3]
        w = torch.where(w.abs() < 1e-12, 1e-12, w)
        return homogeneous[:, :3] / w[:, None]

    def errors(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """[M] reprojection errors, pixels, and [M] depths."""
        residual, depth, _ = self._residuals(xyz)
        return residual.norm(dim=1), depth

    def refined(self, xyz: Tensor, weights: Callable[[Tensor], Tensor]) -> Tensor:
        """`xyz` after Gauss-Newton; `weights` maps errors [M] to weights [M]."""
        eye = 1e-9 * torch.eye(3, dtype=xyz.dtype)
        for _ in range(_ROUNDS):
            residual, depth, local = self._residuals(xyz)
            weight = weights(residual.norm(dim=1)) * (depth > 0)
            # d (x/z, y/z) / d world = ((1, 0, -x/z), (0, 1, -y/z)) / z R, times the focal lengths
            z = depth.clamp_min(1e-12)
            rotation = self.poses[:, :3, :3]
            slope = rotation[:, :2] - (local[:, :2] / z[:, None])[..., None] * rotation[:, 2:]
            slope = slope * (self.focal / z[:, None])[..., None]
            normal = self._sum(weight[:, None, None] * slope.mT @ slope)
            gradient = self._sum(weight[:, None] * (slope.mT @ residual[..., None])[..., 0])
            scale = normal.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-30)
            step = torch.linalg.solve(
                normal / scale[:, None, None] + eye, (gradient / scale[:, None])[..., None]
            )
            xyz = xyz - step[..., 0]
        return xyz

    def _residuals(self, xyz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[M, 2] projection minus observation, pixels; [M] depth; [M, 3] camera coordinates."""
        local = (self.poses[:, :3, :3] @ xyz[self.owner][..., None])[..., 0] + self.poses[:, :3, 3]
        z = local[:, 2]
        ahead = torch.where(z.abs() < 1e-12, 1e-12, z)
        return (local[:, :2] / ahead[:, None] - self.rays) * self.focal, z, local

    def _sum(self, values: Tensor) -> Tensor:
        total = torch.zeros(self.count, *values.shape[1:], dtype=values.dtype)
        return total.index_add_(0, self.owner, values)


def _widest(owner: Tensor, count: int, directions: Tensor) -> Tensor:
    """[P] the largest angle between two of a point's unit `directions`; `owner` is sorted."""
    widest = torch.zeros(count, dtype=torch.float64)
    longest = int(torch.bincount(owner).max()) if len(owner) else 0
    for apart in range(1, longest):
        same = owner[apart:] == owner[:-apart]
        first, second = directions[:-apart][same], directions[apart:][same]
        # exact near zero, where the arc cosine is not
        angle = 2 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1))
        widest.scatter_reduce_(0, owner[apart:][same], angle, "amax")
    return widest
