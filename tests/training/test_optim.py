"""GaussianAdam takes the steps of torch.optim.Adam, with its own rates and penalties."""

from __future__ import annotations

import math

import pytest
import torch

from splat.core import Gaussians
from splat.training.optim import BETAS, EPS, GaussianAdam, PerGaussian, Rates


def scene(n: int = 7, seed: int = 0) -> Gaussians:
    r = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(n, 3, generator=r),
        quats=torch.randn(n, 4, generator=r),
        log_scales=torch.randn(n, 3, generator=r) - 3,
        logit_opacities=torch.randn(n, generator=r),
        sh=torch.randn(n, 4, 3, generator=r),
    )


def loss_of(g: Gaussians) -> torch.Tensor:
    return sum(((i + 1) * value.sin()).square().sum() for i, (_, value) in enumerate(g.named_tensors()))


def test_dense_steps_equal_torch_adam_with_penalties_as_losses() -> None:
    mine, theirs = scene(), scene()
    adam = GaussianAdam(mine, Rates(), extent=2.0, horizon=10)
    adam.declare("extra", PerGaussian(lambda g: g.means[:, 0].clone(), lr=0.03))
    theirs.extras["extra"] = theirs.means[:, 0].clone()
    sh0, shN = theirs.sh[:, :1].clone(), theirs.sh[:, 1:].clone()
    leaves = {"sh0": sh0, "shN": shN, **{n: t for n, t in theirs.named_tensors() if n != "sh"}}
    for leaf in leaves.values():
        leaf.requires_grad_()
    rates = adam.rates(0)
    peer = torch.optim.Adam(
        [{"params": [leaf], "lr": rates[name]} for name, leaf in leaves.items()], betas=BETAS, eps=EPS
    )
    for step in range(10):
        rates = adam.rates(step)
        mine.requires_grad_()
        loss_of(mine).backward()
        adam.step(rates, {"opacity": 0.3, "scale": 0.2})
        for _, value in mine.named_tensors():
            value.grad = None
        mine.requires_grad_(False)

        for group, name in zip(peer.param_groups, leaves, strict=True):
            group["lr"] = rates[name]
        theirs.sh = torch.cat([sh0, shN], 1)
        penalty = 0.3 * theirs.opacities().mean() + 0.2 * theirs.scales().mean()
        peer.zero_grad()
        (loss_of(theirs) + penalty).backward()
        peer.step()
    theirs.sh = torch.cat([sh0, shN], 1)
    expected = dict(theirs.named_tensors())
    for name, value in mine.named_tensors():
        # Ten steps of a few float32 operations each, relative to values of order one.
        torch.testing.assert_close(value, expected[name].detach(), rtol=1e-5, atol=1e-6)


def test_rates_fall_exponentially_and_stay_after_the_horizon() -> None:
    rates = Rates(means=1e-2, means_final=1e-4)
    assert rates.at(0, 100, 3.0)["means"] == pytest.approx(3e-2)
    assert rates.at(50, 100, 3.0)["means"] == pytest.approx(3 * math.sqrt(1e-2 * 1e-4))
    assert rates.at(100, 100, 3.0)["means"] == pytest.approx(3e-4)
    assert rates.at(5000, 100, 3.0) == rates.at(100, 100, 3.0)


def test_a_parameter_without_gradient_decays_and_an_extra_without_gradient_rests() -> None:
    g = scene()
    adam = GaussianAdam(g, Rates(), extent=1.0, horizon=10)
    adam.declare("extra", PerGaussian(0.0, lr=0.1))
    adam.moments["quats"][0].fill_(1.0)
    adam.moments["extra"][0].fill_(1.0)
    adam.step(adam.rates(0), {})
    assert torch.allclose(adam.moments["quats"][0], torch.full((7, 4), 0.9))
    assert (adam.moments["extra"][0] == 1).all()
    assert (g.extras["extra"] == 0).all()


def test_declaring_twice_or_over_a_parameter_is_refused() -> None:
    adam = GaussianAdam(scene(), Rates(), extent=1.0, horizon=10)
    adam.declare("extra", PerGaussian())
    with pytest.raises(ValueError, match="extra"):
        adam.declare("extra", PerGaussian())
    with pytest.raises(ValueError, match="sh"):
        adam.declare("sh", PerGaussian())
    with pytest.raises(ValueError, match="shape"):
        adam.declare("wrong", PerGaussian(lambda g: torch.zeros(3)))
