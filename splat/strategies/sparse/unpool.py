"""Neighbourhood unpooling: new Gaussians between those that are far from their neighbours.

Zhu et al., "FSGS: Real-Time Few-shot View Synthesis using Gaussian Splatting", ECCV 2024, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from splat.core import UsageError
from splat.strategies.sparse.nearest import nearest
from splat.training.context import Context
from splat.training.strategy import Strategy


@dataclass(frozen=True)
class UnpoolConfig:
    """Gaussians added between neighbours."""

    on: bool = False
    """Whether to use it."""
    every: float = 0.02
    """Between two rounds, as a share of the run."""
    stop: float = 0.2
    """When it ends, as a share of the run."""
    above: float = 2.0
    """Gaussians whose mean distance to their neighbours exceeds the median of all by this factor get new ones."""
    neighbours: int = 3
    """Neighbours to which a Gaussian of that kind gets new ones half-way."""

    def __post_init__(self) -> None:
        for ok, message in (
            (0 < self.every <= 1, f"every must lie in (0, 1], got {self.every}"),
            (0 <= self.stop <= 1, f"stop must lie in [0, 1], got {self.stop}"),
            (self.above > 0, f"above must be positive, got {self.above}"),
            (self.neighbours >= 1, f"neighbours must be at least 1, got {self.neighbours}"),
        ):
            if not ok:
                raise UsageError(f"sparse_view: unpool.{message}")


class Unpool(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "unpool"
    config_type: ClassVar[type] = UnpoolConfig
    config: UnpoolConfig

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        c, taken, g = self.config, ctx.step + 1, ctx.gaussians
        every = max(1, round(c.every * ctx.steps))
        if taken % every or taken > c.stop * ctx.steps or len(g) <= c.neighbours:
            return
        distance, near = nearest(g.means, c.neighbours)
        mean = distance.mean(1)
        lonely = (mean > c.above * mean.median()).nonzero()[:, 0]
        # The loneliest first where the cap leaves no room for all.
        order = torch.argsort(mean[lonely], descending=True, stable=True)
        rows = lonely[order][: max(0, ctx.cap - len(g)) // c.neighbours]
        if rows.numel() == 0:
            return
        source = near[rows].flatten()  # shape, opacity and colour are those of the neighbour
        middle = (g.means[rows, None] + g.means[near[rows]]).flatten(0, 1) / 2
        ctx.edits.copy(source, {"means": middle})
        ctx.log("unpooled", source.numel())
