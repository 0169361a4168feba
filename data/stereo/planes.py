"""Which depths to try, and against which other views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.core import Camera
from splat.data.points import in_view
from splat.data.stereo.views import projection, relative_pose

_GRID = 16  # rays across the picture for measuring displacements and overlap
_MARGIN = 0.2  # of the points' range of inverse depths, added at both ends
_OUTLIERS = 0.01  # share of points at either end that is not trusted


def point_range(camera: Camera, xyz: Tensor) -> tuple[float, float] | None:
    """Nearest and farthest depth worth trying, from points [P, 3] that the camera sees; None with fewer than 8."""
    pose = camera.world_to_camera.double()
    local = xyz.double() @ pose[:3, :3].T + pose[:3, 3]
    inside = in_view(camera, xyz.double())
    if int(inside.sum()) < 8:
        return None
    inverse = 1 / local[inside, 2]
    far, near = torch.quantile(
        inverse, torch.tensor([_OUTLIERS, 1 - _OUTLIERS], dtype=inverse.dtype)
    ).tolist()
    margin = _MARGIN * (near - far) + 0.02 * near
    return 1 / (near + margin), 1 / max(far - margin, 0.25 * far)


def geometric_range(camera: Camera, others: Sequence[Camera]) -> tuple[float, float]:
    """Nearest and farthest depth worth trying where nothing is known of the scene.

    Nearer than half the smallest baseline two pictures share little; farther than 50 times the largest, a
    depth moves a match by less than a pixel in common pictures.
    """
    baselines = [float((other.position - camera.position).norm()) for other in others]
    return 0.5 * min(baselines), 50 * max(baselines)


def inverse_depths(
    camera: Camera, others: Sequence[Camera], near: float, far: float, *, step: float, most: int
) -> Tensor:
    """[D] rising inverse depths from 1 / far to 1 / near, evenly spaced.

    Args:
        step: displacement in the pictures of `others` from one plane to the next, pixels, where it is largest
            (the 90th percentile over the pixels that the other picture shows).
        most: number of planes at most.
    """
    moved = max((_displacement(camera, other, near, far) for other in others), default=0.0)
    count = min(max(int(moved / step) + 2, 8), most)
    return torch.linspace(1 / far, 1 / near, count, dtype=torch.float64).float()


def _displacement(camera: Camera, other: Camera, near: float, far: float) -> float:
    """Path in the other picture from near to far, pixels, where it shows the point."""
    pixels, shown = _paths(camera, other, torch.linspace(1 / far, 1 / near, 64))
    moved = (pixels[1:] - pixels[:-1]).norm(dim=-1)
    moved = moved[shown[1:] & shown[:-1]]
    return 63 * float(torch.quantile(moved, 0.9)) if len(moved) else 0.0


def _paths(camera: Camera, other: Camera, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """[D, G, G, 2] pixels in the other picture of a grid of rays at each inverse depth, and whether it shows them."""
    matrix, shift = projection(other, camera)
    x = (torch.linspace(0, 1, _GRID) * camera.width - camera.cx) / camera.fx
    y = (torch.linspace(0, 1, _GRID) * camera.height - camera.cy) / camera.fy
    rays = torch.stack([x.repeat(_GRID, 1), y[:, None].repeat(1, _GRID), torch.ones(_GRID, _GRID)], -1)
    homogeneous = rays @ matrix.T + shift * inverse[:, None, None, None]
    depth = homogeneous[..., 2:].clamp_min(1e-9)
    pixels = homogeneous[..., :2] / depth
    size = torch.tensor([other.width, other.height])
    shown = ((pixels > 0) & (pixels < size)).all(-1) & (homogeneous[..., 2] > 0)
    return pixels, shown


def overlap(camera: Camera, other: Camera, near: float, far: float) -> float:
    """Share of the picture's rays that the other picture shows at the middle inverse depth and half way around it."""
    low, high = 1 / far, 1 / near
    _, shown = _paths(camera, other, torch.linspace(low + 0.25 * (high - low), high - 0.25 * (high - low), 3))
    return float(shown.float().mean())


def sources(index: int, cameras: Sequence[Camera], ranges: tuple[float, float], most: int) -> list[int]:
    """Views to match view `index` against, best first: much in common, seen from the side by 5 to 30 degrees."""
    camera = cameras[index]
    near, far = ranges
    middle = 2 / (1 / near + 1 / far)
    scored = []
    for number, other in enumerate(cameras):
        if number == index:
            continue
        share = overlap(camera, other, near, far)
        _, translation = relative_pose(camera, other)
        # The angle between the rays of both to the middle of this picture.
        target = torch.tensor([0.0, 0.0, middle], dtype=torch.float64)
        to_other = translation - target
        cosine = float(-to_other[2] / to_other.norm().clamp_min(1e-12))
        angle = float(torch.rad2deg(torch.acos(torch.tensor(cosine).clamp(-1, 1))))
        worth = share * _worth(angle)
        if worth > 0.02:
            scored.append((worth, number))
    return [number for _, number in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:most]]


def _worth(angle: float) -> float:
    """1 between 5 and 30 degrees; falls to 0 at 0 (no parallax) and at 75 (nothing looks alike)."""
    return max(0.0, min(angle / 5, 1.0, (75 - angle) / 45))
