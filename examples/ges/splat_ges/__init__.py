"""Generalized exponential splatting: each Gaussian learns how sharply it ends.

Hamdi et al., "GES: Generalized Exponential Splatting for Efficient Radiance Field Rendering", CVPR 2024. A generalized
exponential exp(-|x|^beta) is approximated, as there (section 4.1), by a Gaussian whose scales are multiplied by a
function of a learned shape, so that every rasterizer and every file format takes the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.training.context import Context
from splat.training.strategy import Strategy
from splat_ges.frequency import edge_mask

SHAPE = "ges_shape"


@dataclass(frozen=True)
class GesConfig:
    """Options of generalized exponential splatting."""

    strength: float = 0.1
    """How fast the scale follows the shape: the paper's rho."""
    rate: float = 1e-3
    """Learning rate of the shapes."""
    loss_weight: float = 0.5
    """Weight of the frequency-modulated loss; 0 leaves it out."""
    threshold: float = 0.5
    """A pixel counts in that loss where its band-pass response is above this share of the image's largest."""

    def __post_init__(self) -> None:
        if self.loss_weight < 0:
            raise UsageError(f"ges: loss_weight must not be negative, got {self.loss_weight}")
        if not 0 <= self.threshold < 1:
            raise UsageError(f"ges: threshold must lie in [0, 1), got {self.threshold}")


class Ges(Strategy):
    """A learned shape for every Gaussian, and a loss that looks at one band of frequencies at a time."""

    name: ClassVar[str] = "ges"
    config_type: ClassVar[type] = GesConfig
    config: GesConfig

    def setup(self, ctx: Context) -> None:
        # A shape of 0 is a plain Gaussian. Copies share their source's shape.
        ctx.declare(SHAPE, 0.0, lr=self.config.rate, activation=self._factor, on_copy="copy")

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        factor = ctx.value(SHAPE)
        extras = dict(gaussians.extras)
        if not ctx.training:  # what is exported holds the shapes in its scales
            extras.pop(SHAPE)
        return replace(gaussians, log_scales=gaussians.log_scales + factor.log()[:, None], extras=extras)

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        if self.config.loss_weight == 0:
            return {}
        target = ctx.target.float() / 255
        # From coarse structure to edges over the run (the paper's omega, section 4.2).
        mask = edge_mask(target, max(0.0, 1 - ctx.step / ctx.steps), self.config.threshold)
        if ctx.mask is not None:
            mask = mask & (ctx.mask != 0)
        error = (ctx.output.image - target).abs().mean(2)
        loss = (error * mask).mean()
        if ctx.step % 10 == 0:
            ctx.log("ges_masked", float(mask.float().mean()))
        return {"frequency": self.config.loss_weight * loss}

    def _factor(self, shape: Tensor) -> Tensor:
        """[N] what the scales of `shape` ([N]) are multiplied by: 1 at 0, between 0 and 2."""
        return 2 * torch.sigmoid(self.config.strength * shape)
