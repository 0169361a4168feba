"""Restraint of the view-dependent colour: with few views it explains what geometry should.

Degree dropout as in DropAnSH-GS 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from splat.core import Gaussians, UsageError
from splat.core.sh import MAX_DEGREE, coefficients
from splat.training.context import Context
from splat.training.strategy import Strategy


@dataclass(frozen=True)
class ShConfig:
    """Harmonics held back."""

    on: bool = True
    """Whether to use it."""
    degree: int = 1
    """Highest degree that is drawn and exported."""
    dropout: float = 0.0
    """Probability of a step that it is drawn with a lower degree, any below the one in use."""

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= MAX_DEGREE:
            raise UsageError(f"sparse_view: sh.degree must lie between 0 and {MAX_DEGREE}, got {self.degree}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"sparse_view: sh.dropout must lie in [0, 1), got {self.dropout}")


class ShRestraint(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "sh"
    config_type: ClassVar[type] = ShConfig
    config: ShConfig

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        degree = min(self.config.degree, gaussians.sh_degree)
        in_use = min(degree, ctx.sh_degree)
        if ctx.training and self.config.dropout > 0 and in_use > 0:
            device = ctx.generator.device
            first, second = torch.rand(2, generator=ctx.generator, device=device).tolist()
            if first < self.config.dropout:
                degree = int(second * in_use)
        count = coefficients(degree)
        return gaussians if count == gaussians.sh.shape[1] else replace(gaussians, sh=gaussians.sh[:, :count])
