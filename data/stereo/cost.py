"""How unlike two pictures are at each depth: zero-mean normalised cross-correlation over windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from splat.data.stereo.views import StereoView, pixel_rays, projection

_CHUNK = 1 << 22  # samples at a time
NOISE = (1.5 / 255) ** 2  # variance that 8-bit pictures have where nothing is; damps flat windows


def box(values: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)^2 windows of [N, H, W]; windows end at the border."""
    size = 2 * radius + 1
    mean = functional.avg_pool2d(values[:, None], (1, size), 1, (0, radius), count_include_pad=False)
    return functional.avg_pool2d(mean, (size, 1), 1, (radius, 0), count_include_pad=False)[:, 0]


def matching_cost(
    reference: StereoView,
    others: Sequence[StereoView],
    luma: Sequence[Tensor],
    inverse: Tensor,
    *,
    radius: int,
    best: int,
) -> Tensor:
    """[D, H, W] cost in [0, 1] at each inverse depth.

    (1 - ZNCC) / 2, the mean of the `best` smallest; a view that does not show the point counts 1/2, as between
    unrelated pictures.

    Args:
        luma: [H, W] of the reference, then of the others.
        inverse: [D] inverse depths.
        radius: the window is 2 radius + 1 pixels wide.
        best: how many of the other views count (Kang, Szeliski and Chai 2001: half of them see an occluded point).
    """
    device = luma[0].device
    height, width = luma[0].shape
    rays = pixel_rays(reference.camera, device)
    mean = box(luma[0][None], radius)
    variance = (box(luma[0][None] ** 2, radius) - mean**2).clamp_min(0) + NOISE
    best = min(best, len(others))
    planes = max(1, _CHUNK // (height * width))
    costs = []
    for chunk in inverse.to(device).split(planes):
        each = torch.stack(
            [
                _correlation(reference, rays, luma[0], mean, variance, other, picture, chunk, radius)
                for other, picture in zip(others, luma[1:], strict=True)
            ]
        )
        each = each.nan_to_num_(nan=0.0).neg_().add_(1).mul_(0.5)
        costs.append(
            each.topk(best, dim=0, largest=False).values.mean(0) if best < len(others) else each.mean(0)
        )
    return torch.cat(costs)


def _correlation(
    reference: StereoView,
    rays: Tensor,
    luma: Tensor,
    mean: Tensor,
    variance: Tensor,
    other: StereoView,
    picture: Tensor,
    inverse: Tensor,
    radius: int,
) -> Tensor:
    """[D, H, W] correlation in [-1, 1]; NaN where the other view does not show the point."""
    matrix, shift = projection(other.camera, reference.camera, rays.device)
    homogeneous = (rays @ matrix.T)[None] + (shift * inverse[:, None])[:, None, None]
    z = homogeneous[..., 2:]
    size = picture.new_tensor([other.camera.width, other.camera.height])
    pixels = homogeneous[..., :2] / z.clamp_min(1e-9) / size  # in [0, 1]
    shown = ((pixels > 0) & (pixels < 1)).all(-1) & (z[..., 0] > 0)
    warped = functional.grid_sample(
        picture[None, None].expand(len(inverse), -1, -1, -1),
        pixels * 2 - 1,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]
    warped_mean = box(warped, radius)
    warped_variance = (box(warped**2, radius) - warped_mean**2).clamp_min_(0) + NOISE
    covariance = box(warped * luma, radius) - warped_mean * mean
    correlation = covariance / (warped_variance * variance).sqrt_()
    return correlation.masked_fill_(~shown, float("nan"))
