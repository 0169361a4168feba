"""Floaters removed: Gaussians far from all others, and those that hang before the surface of a view.

Distance to the sqrt(N)-th neighbours: Yang et al., GaussianObject, 2024. Mode against alpha-blended depth: Xiong et
al., SparseGS, 2023; the median depth stands for the mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import Camera, UsageError
from splat.raster import RenderOutput
from splat.strategies.sparse.geometry import inside, projected
from splat.strategies.sparse.nearest import nearest
from splat.training.context import Context
from splat.training.strategy import Strategy

_FEW = 64  # Gaussians below which no statistics are made


@dataclass(frozen=True)
class FloatersConfig:
    """Removal of floaters."""

    on: bool = False
    """Whether to use it."""
    every: float = 0.1
    """Between two removals, as a share of the run."""
    stop: float = 0.8
    """When it ends, as a share of the run: what is left can close the gaps."""
    spread: float = 3.0
    """Gaussians go whose mean distance to the sqrt(N) nearest others exceeds the mean of all by this many standard
    deviations; 0: none."""
    gap: float = 0.3
    """Gaussians go that hang before a pixel's median depth where the blended depth is nearer than it by more than
    this share; 0: none."""

    def __post_init__(self) -> None:
        if not 0 < self.every <= 1:
            raise UsageError(f"sparse_view: floaters.every must lie in (0, 1], got {self.every}")
        if not 0 <= self.stop <= 1:
            raise UsageError(f"sparse_view: floaters.stop must lie in [0, 1], got {self.stop}")
        for name in ("spread", "gap"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"sparse_view: floaters.{name} must not be negative, got {getattr(self, name)}"
                )


class Floaters(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "floaters"
    config_type: ClassVar[type] = FloatersConfig
    needs = frozenset({"depth", "median_depth"})
    config: FloatersConfig

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        c, taken = self.config, ctx.step + 1
        every = max(1, round(c.every * ctx.steps))
        views = len(ctx.views.dataset.train)
        round_, since = divmod(taken, every)
        if round_ == 0 or taken > c.stop * ctx.steps:
            return
        gone = torch.zeros(len(ctx.gaussians), dtype=torch.bool, device=ctx.gaussians.device)
        if since == 0 and c.spread > 0:
            gone |= isolated(ctx.gaussians.means, c.spread)
        if since < min(views, every) and c.gap > 0:  # of every view once
            gone |= hanging(ctx.gaussians.means, ctx.camera, ctx.output, c.gap)
        count = int(gone.sum())
        if 0 < count < len(gone):
            ctx.edits.remove(gone)
            ctx.log("floaters", ctx.scalars.get("floaters", 0.0) + count)


def isolated(means: Tensor, spread: float) -> Tensor:
    """[N] bool: mean distance to the sqrt(N) nearest others above mean + spread x standard deviation of all."""
    n = means.shape[0]
    if n < _FEW:
        return torch.zeros(n, dtype=torch.bool, device=means.device)
    distance = nearest(means, math.isqrt(n))[0].mean(1)
    return distance > distance.mean() + spread * distance.std()


def hanging(means: Tensor, camera: Camera, output: RenderOutput, gap: float) -> Tensor:
    """[N] bool: centres before the median surface of a pixel whose blended depth is nearer than it by more than `gap`
    of it; nearer themselves by as much."""
    assert output.depth is not None
    assert output.median_depth is not None
    surface = output.median_depth
    found = (surface > 0) & (output.depth < (1 - gap) * surface)
    pixels, z = projected(camera, means)
    seen = inside(camera, pixels, z)
    column = pixels[:, 0].long().clamp(0, camera.width - 1)
    row = pixels[:, 1].long().clamp(0, camera.height - 1)
    return seen & found[row, column] & (z < (1 - gap) * surface[row, column])
