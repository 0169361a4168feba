"""Depth of one view by plane sweeping (Collins 1996): cost, aggregation, subpixel minimum, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.data.stereo.aggregate import semi_global
from splat.data.stereo.cost import matching_cost
from splat.data.stereo.views import DepthMap, StereoView, grey


@dataclass(frozen=True)
class SweepOptions:
    """How depth is searched."""

    radius: int = 2
    """The window is 2 radius + 1 pixels wide."""
    step: float = 1.0
    """Displacement between neighbouring planes, pixels."""
    planes: int = 256
    """Number of planes, at most."""
    small: float = 0.03
    """Cost of a change of depth by one plane."""
    large: float = 0.3
    """Cost of a jump of depth."""
    edge: float = 0.1
    """Step of brightness that halves the cost of a jump."""
    directions: int = 8
    """Paths to each pixel: 4 or 8."""


def sweep(
    reference: StereoView, others: Sequence[StereoView], inverse: Tensor, options: SweepOptions
) -> DepthMap:
    """Depth of every pixel of `reference` and how well the others agree with it.

    Args:
        inverse: [D] rising, evenly spaced inverse depths.
    """
    luma = grey([reference, *others])
    raw = matching_cost(reference, others, luma, inverse, radius=options.radius, best=majority(len(others)))
    cost = semi_global(
        raw,
        luma[0],
        small=options.small,
        large=options.large,
        edge=options.edge,
        directions=options.directions,
    )
    index = cost.argmin(0)
    offset = _parabola(cost, index)
    spacing = float(inverse[1] - inverse[0])
    found = inverse.to(index.device)[index] + offset * spacing
    # Correlation 0 says nothing, 1 is full agreement; the ends of the range are no minima.
    agreement = (1 - 2 * raw.gather(0, index[None])[0]).clamp(0, 1)
    inner = (index > 0) & (index < len(inverse) - 1)
    confidence = agreement * inner
    return DepthMap(torch.where(inner, 1 / found, 0.0), confidence)


def majority(others: int) -> int:
    """How many of the other views must show a point: the half that occlusion leaves (Kang, Szeliski, Chai 2001)."""
    return (others + 1) // 2


def _parabola(cost: Tensor, index: Tensor) -> Tensor:
    """[H, W] offset of the minimum from `index`, in planes: the vertex through its neighbours, in [-1/2, 1/2]."""
    at = index.clamp(1, cost.shape[0] - 2)[None]
    before, middle, after = (cost.gather(0, at + k)[0] for k in (-1, 0, 1))
    curvature = before - 2 * middle + after
    offset = (before - after) / (2 * curvature.clamp_min(1e-9))
    return torch.where((index == at[0]) & (curvature > 1e-9), offset.clamp(-0.5, 0.5), 0.0)
