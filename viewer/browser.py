"""Scenes as viser's own splats, which the browser draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.sh import to_rgb

# viser keeps covariances as float16. They are enlarged so that the largest axis, squared, stays under its
# largest value with room for rounding; what is then below its smallest normal number is below 1e-9 of that.
_LARGEST = 3.0e4


@dataclass(frozen=True)
class Splats:
    """Arguments of viser's add_gaussian_splats.

    Attributes:
        centers: [N, 3], covariances: [N, 3, 3]; of the scene times 1 / scale.
        rgbs: [N, 3], opacities: [N, 1], in [0, 1].
        scale: what the browser multiplies them by.
    """

    centers: np.ndarray
    covariances: np.ndarray
    rgbs: np.ndarray
    opacities: np.ndarray
    scale: float


def splats(gaussians: Gaussians, cap: int) -> Splats:
    """At most `cap` Gaussians of a scene for the browser, in the colours that they have from everywhere."""
    chosen = gaussians.select(sample(gaussians, cap)) if len(gaussians) > cap else gaussians
    scale = covariance_scale(chosen.scales())
    covariances = chosen.covariances() / scale**2
    return Splats(
        (chosen.means / scale).float().cpu().numpy(),
        covariances.float().cpu().numpy(),
        to_rgb(chosen.sh[:, 0]).clamp(0, 1).float().cpu().numpy(),
        chosen.opacities()[:, None].float().cpu().numpy(),
        scale,
    )


def covariance_scale(scales: Tensor) -> float:
    """The power of two by which to divide a scene so that its covariances make most of float16.

    Args:
        scales: [N, 3] standard deviations, world units.
    """
    if not len(scales):
        return 1.0
    largest = float(scales.max())
    return float(2.0 ** np.ceil(np.log2(max(largest, 1e-30) / np.sqrt(_LARGEST))))


def sample(gaussians: Gaussians, count: int) -> Tensor:
    """[count] int64 rows, in order: a draw without replacement in which a Gaussian's chance goes with its
    opacity times the area it covers (Efraimidis and Spirakis, 2006).

    The same rows of a scene get the same draw each time, so that a scene in training does not flicker.
    """
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(len(gaussians), generator=generator).clamp_min(1e-12).to(gaussians.device)
    largest = gaussians.scales().topk(2, dim=1).values
    weight = (gaussians.opacities() * largest.prod(1)).clamp_min(1e-30)
    keys = torch.log(-torch.log(draw)) - torch.log(weight)
    return keys.topk(count, largest=False).indices.sort().values
