"""Consistency of training views: a surface point drawn in one lies where another draws it, and looks there as it does.

The check of multi-view stereo (Galliani et al. 2015; Yao et al., MVSNet, 2018) as a loss on the drawn depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.strategies.sparse.geometry import (
    OPAQUE,
    inside,
    kept_mean,
    neighbours,
    projected,
    sampled,
    unprojected,
)
from splat.training.context import MAIN, Context
from splat.training.strategy import Further, Strategy
from splat.training.views import View


@dataclass(frozen=True)
class ConsistencyConfig:
    """Agreement of the depths of two training views."""

    on: bool = False
    """Whether to use it."""
    weight: float = 1.0
    """Weight in the loss of the mean relative difference of depth."""
    colour: float = 1.0
    """Weight in the loss of the mean absolute difference of the two photographs at corresponding pixels."""
    tolerance: float = 0.1
    """A point whose depth differs by more, relative to it, counts as hidden in the other view."""
    near: int = 2
    """The other view is drawn among this many nearest ones."""
    every: int = 2
    """Steps from one comparison to the next."""
    start: float = 0.2
    """When it begins, as a share of the run."""

    def __post_init__(self) -> None:
        for name in ("weight", "colour"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"sparse_view: consistency.{name} must not be negative, got {getattr(self, name)}"
                )
        if not self.tolerance > 0:
            raise UsageError(f"sparse_view: consistency.tolerance must be positive, got {self.tolerance}")
        for name in ("near", "every"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"sparse_view: consistency.{name} must be at least 1, got {getattr(self, name)}"
                )
        if not 0 <= self.start <= 1:
            raise UsageError(f"sparse_view: consistency.start must lie in [0, 1], got {self.start}")


class Consistency(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "consistency"
    config_type: ClassVar[type] = ConsistencyConfig
    needs = frozenset({"depth"})
    config: ConsistencyConfig

    def setup(self, ctx: Context) -> None:
        self._near = [others[: self.config.near] for others in neighbours(ctx.views.cameras())]
        self._other: tuple[Further, View] | None = None

    def renders(self, ctx: Context) -> list[Further]:
        c, self._other = self.config, None
        if ctx.step < c.start * ctx.steps or ctx.step % c.every:
            return []
        others = self._near[ctx.position]
        drawn = int(torch.randint(len(others), (1,), generator=ctx.generator, device=ctx.generator.device))
        view = ctx.views.at(others[drawn], ctx.step, ctx.background)
        further = Further(MAIN, view.camera, ctx.options("depth"))
        self._other = further, view
        return [further]

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        if self._other is None:
            return {}
        (further, view), output, c = self._other, ctx.output, self.config
        assert output.depth is not None
        assert further.drawn.depth is not None
        pixels, z = projected(view.camera, unprojected(ctx.camera, output.depth))
        theirs = torch.stack([further.drawn.depth, further.drawn.alpha], -1)
        depth, alpha = sampled(theirs, pixels).unbind(-1)
        difference = (depth - z).abs() / (depth + z).detach().clamp_min(1e-12) * 2
        kept = inside(view.camera, pixels.detach(), z.detach()) & (output.alpha > OPAQUE) & (alpha > OPAQUE)
        if ctx.mask is not None:
            kept &= ctx.mask != 0
        if view.mask is not None:
            kept &= sampled((view.mask != 0).to(depth)[..., None], pixels.detach())[..., 0] == 1
        kept &= difference < c.tolerance
        losses = {"depth": c.weight * kept_mean(difference, kept)}
        if c.colour > 0:
            seen = sampled(view.target.to(depth) / 255, pixels)
            colours = (seen - ctx.target.to(depth) / 255).abs().mean(-1)
            losses["colour"] = c.colour * kept_mean(colours, kept)
        return losses
