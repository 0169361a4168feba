"""A transform whose gradients go straight through keeps the fused step, and takes the same steps as autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.training.context import Context
from splat.training.session import Session
from splat.training.strategy import Strategy

Start = Callable[..., Session]


def coarse(values: Tensor) -> Tensor:
    return (8 * values).round() / 8


class Rounded(Strategy):
    """Draws every value rounded to eighths, by the rule of autograd: x + (q(x) - x) without its gradient."""

    name = "rounded"
    config_type = type(None)
    controls_density = True

    def __init__(self) -> None:
        super().__init__(None)
        self.with_autograd: bool | None = None

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        if ctx.training:
            self.with_autograd = torch.is_grad_enabled()
        rounded = {name: getattr(gaussians, name) for name in PARAMETERS}
        return replace(gaussians, **{n: v + (coarse(v) - v).detach() for n, v in rounded.items()})

    def penalties(self, ctx: Context) -> dict[str, float]:
        return {"opacity": 0.01, "scale": 0.02}


class Straight(Rounded):
    straight_through = True


class StraightDense(Straight):
    needs = frozenset({"param_grads"})


@pytest.mark.parametrize("other", [Straight, StraightDense])
def test_equals_autograd(start: Start, other: Any) -> None:
    """Ten steps on the native backend: the fused one and the dense one against autograd's.

    A step is at most the rate, so values may differ by a hundredth of it in the mean: the gradients differ by
    the rounding of x + (q(x) - x), some 1e-7 of x.
    """
    expected, tried = start([Rounded()], backend="cpu"), start([other()], backend="cpu")
    fused = []
    step_fused = tried.trainer.ctx.optimizer.step_fused
    tried.trainer.ctx.optimizer.step_fused = lambda *a: (fused.append(1), step_fused(*a))
    begun = expected.trainer.ctx.gaussians.clone()
    for session in (expected, tried):
        for _ in range(10):
            session.trainer.step()
    assert len(fused) == (10 if other is Straight else 0)
    assert expected.trainer.strategies[0].with_autograd
    assert not tried.trainer.strategies[0].with_autograd
    rates = expected.trainer.ctx.rates
    for name, value in expected.trainer.ctx.gaussians.named_tensors():
        difference = (getattr(tried.trainer.ctx.gaussians, name) - value).abs()
        rate = rates["shN" if name == "sh" else name]
        assert difference.mean() <= 1e-2 * rate, name
        assert not torch.equal(value, getattr(begun, name))


def test_what_is_exported_is_what_was_drawn(start: Start) -> None:
    session = start([Straight()], backend="cpu")
    session.trainer.step()
    stored, baked = session.trainer.ctx.gaussians, session.trainer.baked()
    assert torch.equal(baked.log_scales, stored.log_scales + (coarse(stored.log_scales) - stored.log_scales))
    assert not baked.log_scales.requires_grad
