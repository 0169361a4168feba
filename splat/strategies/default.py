"""Adaptive density control: duplicate and split where the image asks for it, prune what does nothing.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", SIGGRAPH 2023, section 5; the
absolute gradients are those of Ye et al., "AbsGS", ACM MM 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.core.rotations import quat_to_matrix
from splat.strategies.kernels import accumulate_gradients_
from splat.training.context import Context
from splat.training.strategy import Strategy

SPLIT_SCALE = 1.6
"""A child's scale is its parent's over this (Kerbl et al., section 5.2)."""


@dataclass(frozen=True)
class DefaultConfig:
    """Options of adaptive density control."""

    absgrad: bool = False
    """Grow by absolute gradients, whose pixels do not cancel: more detail in fine texture."""
    grow_threshold: float | None = None
    """Mean gradient, for images 2 wide, above which a Gaussian grows; by default 2e-4, with absgrad 8e-4."""
    split_above: float = 0.01
    """Gaussians larger than this share of the scene extent are split, smaller ones duplicated."""
    min_opacity: float = 0.005
    """Gaussians of a lower opacity are removed."""
    prune_above: float = 0.1
    """After the first opacity reset, Gaussians larger than this share of the scene extent are removed."""
    refine_start: int = 500
    """Last step before refinement."""
    refine_stop: int | None = None
    """Step at which refinement and opacity resets end; by default after half of the run."""
    refine_every: int = 100
    """Steps between refinements."""
    reset_every: int = 3000
    """Steps between opacity resets; 0 for none."""
    reset_opacity: float = 0.01
    """A reset lowers every opacity to at most this."""

    def __post_init__(self) -> None:
        if self.refine_every < 1:
            raise UsageError(f"default: refine_every must be at least 1, got {self.refine_every}")
        if self.reset_every < 0:
            raise UsageError(f"default: reset_every must be 0 (never) or more, got {self.reset_every}")
        for name in ("grow_threshold", "split_above", "prune_above"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"default: {name} must be above 0, got {value}")
        if not self.min_opacity < self.reset_opacity < 1:
            raise UsageError(
                f"default: reset_opacity must lie between min_opacity ({self.min_opacity}) and 1, "
                f"got {self.reset_opacity}; a reset would remove every Gaussian"
            )


class Default(Strategy):
    """Adaptive density control; its statistics live in ctx.edits.state and follow every edit."""

    name: ClassVar[str] = "default"
    config_type: ClassVar[type] = DefaultConfig
    controls_density: ClassVar[bool] = True
    config: DefaultConfig

    def __init__(self, config: DefaultConfig) -> None:
        super().__init__(config)
        self.needs = frozenset({"absgrad" if config.absgrad else "means2d_grad", "radii"})

    @property
    def threshold(self) -> float:
        """Mean gradient, in normalised device coordinates, above which a Gaussian grows."""
        if self.config.grow_threshold is not None:
            return self.config.grow_threshold
        return 8e-4 if self.config.absgrad else 2e-4

    def setup(self, ctx: Context) -> None:
        ctx.edits.track("gradient_sum")
        ctx.edits.track("view_count")

    def stop(self, ctx: Context) -> int:
        """The step at which refinement ends."""
        return ctx.steps // 2 if self.config.refine_stop is None else self.config.refine_stop

    def needed(self, ctx: Context) -> frozenset[str]:
        return self.needs if ctx.training and self._gathers(ctx) else frozenset()

    def runs_ahead(self, ctx: Context) -> bool:
        c, taken = self.config, ctx.step + 1
        resets = c.reset_every > 0 and taken % c.reset_every == 0
        refines = taken > c.refine_start and taken % c.refine_every == 0
        return taken >= self.stop(ctx) or not (refines or resets)

    def repeats(self, ctx: Context) -> bool:
        return self._gathers(ctx)

    def _gathers(self, ctx: Context) -> bool:
        """Whether this step's gradients count for a refinement to come."""
        return ctx.step + 1 < self.stop(ctx)

    @torch.no_grad()
    def after_backward(self, ctx: Context) -> None:
        if not self._gathers(ctx):
            return
        output, camera = ctx.output, ctx.camera
        assert output is not None
        assert camera is not None
        gradient = output.means2d_absgrad if self.config.absgrad else output.means2d_grad
        assert gradient is not None
        assert output.radii is not None
        sums, views = ctx.edits.state["gradient_sum"], ctx.edits.state["view_count"]
        accumulate_gradients_(sums, views, gradient, output.radii, camera.width, camera.height, ctx.guard)

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        c = self.config
        taken = ctx.step + 1
        if taken >= self.stop(ctx):
            return
        if taken > c.refine_start and taken % c.refine_every == 0:
            duplicated, split = self.grow(ctx)
            ctx.log("duplicated", duplicated)
            ctx.log("split", split)
            ctx.log("pruned", self.prune(ctx, large=c.reset_every > 0 and taken > c.reset_every))
            for name in ("gradient_sum", "view_count"):
                ctx.edits.state[name].zero_()
        if c.reset_every and taken % c.reset_every == 0:
            self.reset_opacities(ctx)

    def grow(self, ctx: Context) -> tuple[int, int]:
        """Duplicate small and split large Gaussians of high mean gradient, the highest first if the cap
        leaves no room for all; returns how many of each."""
        g, state = ctx.gaussians, ctx.edits.state
        mean_gradient = state["gradient_sum"] / state["view_count"].clamp(min=1)
        hot = (mean_gradient > self.threshold).nonzero()[:, 0]
        room = max(0, ctx.cap - len(g))
        if hot.numel() > room:
            order = torch.argsort(mean_gradient[hot], descending=True, stable=True)
            hot = hot[order[:room]].sort().values
        large = g.log_scales[hot].amax(dim=1) > math.log(self.config.split_above * ctx.scene_extent)
        duplicated, split = hot[~large], hot[large]
        # Copies are appended, so that the rows of `split` stay where they are.
        if duplicated.numel():
            ctx.edits.copy(duplicated)
        if split.numel():
            ctx.edits.split(split, children(ctx, split))
        return duplicated.numel(), split.numel()

    def prune(self, ctx: Context, large: bool) -> int:
        """Remove transparent and, with `large`, over-large Gaussians; returns how many."""
        g = ctx.gaussians
        which = g.opacities() < self.config.min_opacity
        if large:
            which |= g.log_scales.amax(dim=1) > math.log(self.config.prune_above * ctx.scene_extent)
        count = int(which.sum())
        if count:
            ctx.edits.remove(which)
        return count

    def reset_opacities(self, ctx: Context) -> None:
        """Lower every opacity to at most reset_opacity; what is needed recovers, the rest is pruned."""
        ceiling = math.log(self.config.reset_opacity / (1 - self.config.reset_opacity))
        ctx.edits.replace("logit_opacities", None, ctx.gaussians.logit_opacities.clamp(max=ceiling))


def children(ctx: Context, index: Tensor) -> dict[str, Tensor]:
    """[2 M] values of two children of each Gaussian of `index` ([M] int64): drawn from it, and smaller."""
    g = ctx.gaussians
    scales = torch.exp(g.log_scales[index])
    eta = torch.randn((2, *scales.shape), generator=ctx.generator, device=g.device, dtype=g.dtype)
    offsets = quat_to_matrix(g.quats[index]) @ (scales * eta)[..., None]
    return {
        "means": (g.means[index] + offsets[..., 0]).flatten(0, 1),
        "log_scales": (g.log_scales[index] - math.log(SPLIT_SCALE)).repeat(2, 1),
    }
