"""Total variation of depth: smooth where the photograph is.

Total variation of inverse depth as in CoherentGS (Paliwal et al. 2024); weights exp(-k |grad I|) as in Godard et al.
2017, with the k of Binocular-Guided 3DGS (Han et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.raster.constants import NEAR
from splat.strategies.sparse.geometry import OPAQUE, kept_mean
from splat.training.context import Context
from splat.training.strategy import Strategy


@dataclass(frozen=True)
class SmoothnessConfig:
    """Total variation of the drawn depth."""

    on: bool = False
    """Whether to use it."""
    weight: float = 0.3
    """Weight in the loss of the mean absolute gradient of disparity, in units of its mean."""
    edges: float = 10.0
    """Gradients of the photograph (per pixel, colours in [0, 1]) count exp(-edges x gradient)."""
    start: float = 0.0
    """When it begins, as a share of the run."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UsageError(f"sparse_view: smoothness.weight must not be negative, got {self.weight}")
        if self.edges < 0:
            raise UsageError(f"sparse_view: smoothness.edges must not be negative, got {self.edges}")
        if not 0 <= self.start <= 1:
            raise UsageError(f"sparse_view: smoothness.start must lie in [0, 1], got {self.start}")


class Smoothness(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "smoothness"
    config_type: ClassVar[type] = SmoothnessConfig
    needs = frozenset({"depth"})
    config: SmoothnessConfig

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        c = self.config
        if c.weight == 0 or ctx.step < c.start * ctx.steps:
            return {}
        output = ctx.output
        assert output.depth is not None
        photograph = ctx.target.to(output.depth) / 255
        return {self.name: c.weight * variation(output.depth, output.alpha.detach(), photograph, c.edges)}


def variation(depth: Tensor, alpha: Tensor, photograph: Tensor, edges: float) -> Tensor:
    """Mean edge-weighted |gradient| of 1 / depth in units of its mean; where both pixels are opaque.

    Args:
        depth: [H, W] camera z; 0 where nothing was drawn.
        alpha: [H, W].
        photograph: [H, W, 3] in [0, 1].
        edges: exponent per unit of colour.
    """
    solid = (alpha > OPAQUE) & (depth > NEAR)
    disparity = torch.where(solid, 1 / depth.clamp_min(NEAR), 0)
    mean = kept_mean(disparity, solid).detach().clamp_min(1e-12)
    total = depth.new_zeros(())
    for axis in (0, 1):
        weight = torch.exp(-edges * photograph.diff(dim=axis).abs().mean(-1))
        n = depth.shape[axis]
        both = solid.narrow(axis, 0, n - 1) & solid.narrow(axis, 1, n - 1)
        total = total + kept_mean(weight * disparity.diff(dim=axis).abs() / mean, both)
    return total
