"""Density control by sampling: noise, relocation of the dead, growth to a cap.

Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", NeurIPS 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.strategies.kernels import add_noise_, relocation
from splat.training.context import Context
from splat.training.strategy import Strategy

GAIN = "mcmc.gain"
"""Of this step's noise, among the context's numbers."""

UNIT_EXTENT = 5.0
"""Extent of the scenes that the published weights are for. The paper's noise is a rate times a covariance, which grows
with the cube of the units, and its penalty grows with the units: weights of their own in every scene. COLMAP makes the
middle 80 % of the cameras 10 units across; a model in metres, from GPS or a scanner, may be any size."""


@dataclass(frozen=True)
class McmcConfig:
    """Options of MCMC density control."""

    noise: float = 5e5
    """Strength of the noise on the centres, times their learning rate, in a scene of extent 5, as those of COLMAP
    are; other scenes take it as if they were scaled to that. 0 turns exploring off."""
    opacity_penalty: float = 0.01
    """Weight of the mean opacity in the loss: what is not needed fades and is moved elsewhere."""
    scale_penalty: float = 0.01
    """Weight of the mean scale in the loss, in a scene of extent 5: what is not needed shrinks."""
    min_opacity: float = 0.005
    """Gaussians of at most this opacity are dead: they are moved onto living ones."""
    growth: float = 1.05
    """The number of Gaussians grows by this factor at every refinement, up to the cap."""
    refine_start: int = 500
    """Last step before refinement."""
    refine_stop: int | None = None
    """Step at which refinement ends (the noise goes on); by default after 5/6 of the run."""
    refine_every: int = 100
    """Steps between refinements."""

    def __post_init__(self) -> None:
        if self.refine_every < 1:
            raise UsageError(f"mcmc: refine_every must be at least 1, got {self.refine_every}")
        if self.growth < 1:
            raise UsageError(f"mcmc: growth must be at least 1, got {self.growth}")
        if not 0 < self.min_opacity < 1:
            raise UsageError(f"mcmc: min_opacity must lie between 0 and 1, got {self.min_opacity}")
        for name in ("noise", "opacity_penalty", "scale_penalty"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"mcmc: {name} must be 0 or more, got {value}")


class Mcmc(Strategy):
    """MCMC density control; keeps no state of its own."""

    name: ClassVar[str] = "mcmc"
    config_type: ClassVar[type] = McmcConfig
    controls_density: ClassVar[bool] = True
    config: McmcConfig

    def penalties(self, ctx: Context) -> dict[str, float]:
        scale = self.config.scale_penalty * UNIT_EXTENT / ctx.scene_extent
        return {"opacity": self.config.opacity_penalty, "scale": scale}

    def refines(self, ctx: Context) -> bool:
        """Whether Gaussians are relocated and added after this step."""
        return self.refines_at(ctx.step + 1, ctx.steps)

    def refines_at(self, taken: int, steps: int) -> bool:
        """Whether Gaussians are relocated and added once so many of the run's `steps` are taken."""
        c = self.config
        stop = steps * 5 // 6 if c.refine_stop is None else c.refine_stop
        return c.refine_start < taken < stop and taken % c.refine_every == 0

    def forecast(self, count: int, cap: int, taken: int, steps: int) -> tuple[int, int]:
        grown = min(cap, int(self.config.growth * count)) if self.refines_at(taken, steps) else count
        return max(count, grown), cap

    def runs_ahead(self, ctx: Context) -> bool:
        return not self.refines(ctx)

    def numbers(self, ctx: Context) -> dict[str, float]:
        # The rate is in units of the scene, and so shall be the movement: the covariance is taken in unit extents.
        return {GAIN: self.config.noise * ctx.rates["means"] * (UNIT_EXTENT / ctx.scene_extent) ** 2}

    def repeats(self, ctx: Context) -> bool:
        return self.config.noise > 0

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        c = self.config
        if self.refines(ctx):
            ctx.log("relocated", relocate_dead(ctx, c.min_opacity))
            ctx.log("added", grow(ctx, c.growth, c.min_opacity))
        if c.noise > 0:
            g = ctx.gaussians
            eta = torch.randn(g.means.shape, generator=ctx.generator, device=g.device, dtype=g.dtype)
            gain = ctx.numbers[GAIN]
            add_noise_(g.means, g.quats, g.log_scales, g.logit_opacities, eta, gain, ctx.guard)


def relocate_dead(ctx: Context, min_opacity: float) -> int:
    """Move every Gaussian of at most `min_opacity` onto a living one; returns how many."""
    opacities = ctx.gaussians.opacities()
    dead = (opacities <= min_opacity).nonzero()[:, 0]
    if not 0 < dead.numel() < opacities.numel():
        return 0
    source = sample(torch.where(opacities <= min_opacity, 0, opacities), dead.numel(), ctx.generator)
    ctx.edits.relocate(dead, source, shared_values(ctx, source, min_opacity))
    return dead.numel()


def grow(ctx: Context, growth: float, min_opacity: float) -> int:
    """Add copies of sampled Gaussians until there are growth N or the cap of them; returns how many."""
    n = len(ctx.gaussians)
    added = min(ctx.cap, int(growth * n)) - n
    if added <= 0:
        return 0
    source = sample(ctx.gaussians.opacities(), added, ctx.generator)
    ctx.edits.copy(source, shared_values(ctx, source, min_opacity), update_source=True)
    return added


def sample(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count] int64 indices drawn with replacement in proportion to [N] weights; any N."""
    cumulative = weights.double().cumsum(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator, device=weights.device)
    # The first sum above the draw belongs to a positive weight; a draw may round up to the total itself.
    return torch.searchsorted(cumulative, drawn * cumulative[-1], right=True).clamp_(max=weights.numel() - 1)


def shared_values(ctx: Context, source: Tensor, min_opacity: float) -> dict[str, Tensor]:
    """What `source` ([M] int64, repeats allowed) and its copies become: opacities and scales of each row."""
    g = ctx.gaussians
    counts = torch.bincount(source, minlength=len(g))[source] + 1
    opacities, factors = relocation(g.opacities()[source], counts)
    opacities = opacities.clamp(min_opacity, 1 - torch.finfo(torch.float32).eps)
    return {
        "logit_opacities": torch.logit(opacities),
        "log_scales": g.log_scales[source] + torch.log(factors)[:, None],
    }
