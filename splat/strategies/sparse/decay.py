"""Opacity decay: opacities shrink a little after every step; what the pictures need is pushed back up.

Han et al., "Binocular-Guided 3D Gaussian Splatting with View Consistency for Sparse View Synthesis", NeurIPS 2024.
There all of them shrink; here those that the picture shows: nothing could push back what is hidden or beyond its edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from splat.core import UsageError
from splat.training.context import Context
from splat.training.strategy import Strategy

PUBLISHED_STEPS = 30_000
_DRAWN = 0.02  # of a pixel, together: what contributes less is hidden, and nothing would push it back


@dataclass(frozen=True)
class DecayConfig:
    """Opacities that shrink."""

    on: bool = True
    """Whether to use it."""
    rate: float = 0.995
    """Factor of the opacities that the picture shows, at every step of a run of 30,000 steps; of a shorter one a step
    counts for as many as it stands for, but for no more than `most`."""
    most: float = 2.4
    """Published steps that one step stands for, at most: what pushes back does not grow with the length of a step."""
    start: float = 0.0167
    """When it begins, as a share of the run."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise UsageError(f"sparse_view: decay.rate must lie in (0, 1], got {self.rate}")
        if not self.most > 0:
            raise UsageError(f"sparse_view: decay.most must be positive, got {self.most}")
        if not 0 <= self.start <= 1:
            raise UsageError(f"sparse_view: decay.start must lie in [0, 1], got {self.start}")


class Decay(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "decay"
    config_type: ClassVar[type] = DecayConfig
    needs = frozenset({"contribution"})
    config: DecayConfig

    def factor(self, ctx: Context) -> float:
        """Of the opacities at the current step."""
        c = self.config
        if ctx.step < c.start * ctx.steps:
            return 1.0
        return c.rate ** min(c.most, PUBLISHED_STEPS / max(1, ctx.steps))

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        factor = self.factor(ctx)
        if factor == 1:
            return
        contribution = ctx.output.contribution
        assert contribution is not None
        # Where density control has just added or removed rows: not this time.
        if len(contribution) != len(ctx.gaussians):
            return
        opacities = ctx.gaussians.opacities()
        opacities = torch.where(contribution > _DRAWN, opacities * factor, opacities)
        ctx.edits.replace("logit_opacities", None, torch.logit(opacities, 1e-7), zero_moments=False)
