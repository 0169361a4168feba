"""A run without a trainer: a context for the hooks of a strategy."""

from __future__ import annotations

import torch

from splat.core import Camera, Gaussians
from splat.training.context import Context, Field
from splat.training.optim import Rates


def gaussians(count: int, seed: int = 0) -> Gaussians:
    """Random Gaussians of middling opacity and size, float32."""
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        log_scales=-3 + 0.5 * torch.randn(count, 3, generator=g),
        logit_opacities=torch.randn(count, generator=g),
        sh=torch.rand(count, 4, 3, generator=g),
    )


def context(
    g: Gaussians, *, steps: int = 30_000, cap: int = 10_000, extent: float = 1.0, seed: int = 1
) -> Context:
    """A run of `g` whose moments are all one, about to take its first step."""
    field = Field("main", g, Rates(), extent, steps)
    for pair in field.optimizer.moments.values():
        for moment in pair:
            moment.fill_(1.0)
    ctx = Context(
        config=None,
        main=field,
        scene_extent=extent,
        steps=steps,
        cap=cap,
        generator=torch.Generator().manual_seed(seed),
    )
    ctx.camera = Camera(40, 20, 30.0, 30.0, 20.0, 10.0, torch.eye(4))
    at_step(ctx, 0)
    return ctx


def at_step(ctx: Context, step: int) -> Context:
    """The context at 0-based `step`, with its rates."""
    ctx.step = step
    ctx.rates = ctx.optimizer.rates(step)
    return ctx


def rows(ctx: Context) -> dict[str, torch.Tensor]:
    """Every tensor of the run that has a row a Gaussian, by name, cloned."""
    found = {name: value.clone() for name, value in ctx.gaussians.named_tensors()}
    for name, (first, second) in ctx.optimizer.moments.items():
        found[f"{name}.first"], found[f"{name}.second"] = first.clone(), second.clone()
    return found | {name: value.clone() for name, value in ctx.edits.state.items()}
