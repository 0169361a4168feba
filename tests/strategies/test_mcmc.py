"""MCMC density control, on a run without a trainer."""

from __future__ import annotations

import math

import pytest
import torch
from fake_run import at_step, context, gaussians, rows

from splat.core import UsageError
from splat.core.gaussians import PARAMETERS
from splat.strategies import kernels_reference
from splat.strategies.mcmc import Mcmc, McmcConfig, grow, relocate_dead, sample
from splat.training.context import Context


def with_dead(count: int = 60, dead: int = 10, **options) -> Context:
    """Every sixth of the first `dead` * 6 Gaussians is dead: an opacity of 0.004."""
    g = gaussians(count)
    g.logit_opacities[torch.arange(dead) * 6] = torch.logit(torch.tensor(0.004))
    return context(g, **options)


def test_noise_alone_moves_the_means_alone():
    """mu += Sigma eta sigmoid(100 ((1 - o) - 0.995)) 5e5 lr, Sigma in units of a scene of extent 5, eta from the
    run's generator."""
    ctx = at_step(with_dead(extent=2.0), 40)
    before, rate = rows(ctx), ctx.rates["means"]
    assert rate == pytest.approx(2.0 * 1.6e-4, rel=0.01)
    eta = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    strategy = Mcmc(McmcConfig())
    ctx.set_numbers(strategy.numbers(ctx))
    strategy.after_step(ctx)
    expected = before["means"].double()
    others = [before[name].double() for name in ("quats", "log_scales", "logit_opacities")]
    kernels_reference.add_noise_(expected, *others, eta.double(), 5e5 * rate * (5 / 2) ** 2)
    torch.testing.assert_close(ctx.gaussians.means.double(), expected, rtol=1e-6, atol=1e-6)
    assert (ctx.gaussians.means != before["means"]).any(1)[torch.arange(10) * 6].all()
    after = rows(ctx)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "means")


def test_units_do_not_matter():
    """The same scene in metres and in millimetres moves as far and is as keen to shrink, in its own units."""
    moved, pulls = [], []
    for unit in (1.0, 1000.0):
        g = gaussians(60)
        g.logit_opacities[:30] = torch.logit(torch.tensor(0.004))
        g.means *= unit
        g.log_scales += math.log(unit)
        ctx = at_step(context(g, extent=3.0 * unit), 40)
        before = g.means.clone()
        strategy = Mcmc(McmcConfig())
        ctx.set_numbers(strategy.numbers(ctx))
        strategy.after_step(ctx)
        moved.append((ctx.gaussians.means - before) / unit)
        pulls.append(strategy.penalties(ctx)["scale"] * float(g.log_scales.exp().mean()))
    # Differences of float32 centres, whose rounding is that of coordinates of this size.
    rounding = 4 * torch.finfo(torch.float32).eps * float(gaussians(60).means.abs().max())
    assert moved[0].abs().max() > 100 * rounding
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=rounding)
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-4)


def test_noise_can_be_turned_off():
    ctx = with_dead()
    before = rows(ctx)
    Mcmc(McmcConfig(noise=0.0)).after_step(ctx)
    assert all(torch.equal(value, before[name]) for name, value in rows(ctx).items())


def test_schedule():
    """Refinement every 100 for 500 < step < 5/6 of the run, counting steps from one; noise always."""
    refined = []
    for taken in range(1, 3001):
        if taken % 50 and taken not in (501, 2499, 2501):
            continue
        g = gaussians(20)
        g.logit_opacities[0] = -4.5
        ctx = at_step(context(g, steps=3000), taken - 1)
        before = ctx.gaussians.means.clone()
        strategy = Mcmc(McmcConfig())
        ctx.set_numbers(strategy.numbers(ctx))
        strategy.after_step(ctx)
        if len(ctx.gaussians) != 20:
            refined.append(taken)
        assert not torch.equal(ctx.gaussians.means[:20], before)
    assert refined == list(range(600, 2500, 100))


def test_growth_to_the_cap():
    """int(1.05 N), never above the cap, as in the paper's code."""
    ctx = context(gaussians(100), cap=120)
    counts = []
    for _ in range(6):
        added = grow(ctx, 1.05, 0.005)
        counts.append(len(ctx.gaussians))
        assert added == counts[-1] - ([100, *counts])[len(counts) - 1]
    assert counts == [105, 110, 115, 120, 120, 120]


def test_a_cap_below_the_count_removes_nothing():
    ctx = context(gaussians(100), cap=50)
    assert grow(ctx, 1.05, 0.005) == 0
    assert len(ctx.gaussians) == 100


def test_growth_shares_out_opacity_and_scale():
    ctx = context(gaussians(40))
    before = rows(ctx)
    added = grow(ctx, 1.5, 0.005)
    after = rows(ctx)
    # Colour and orientation are copied with the place, which tells each copy's source.
    source = torch.stack([(before["means"] == m).all(1).nonzero()[0, 0] for m in after["means"][40:]])
    assert added == 20
    times = torch.bincount(source, minlength=40)
    assert times.max() > 1
    opacity = torch.sigmoid(before["logit_opacities"].double())
    expected, factor = kernels_reference.relocation(opacity, times + 1)
    chosen = times > 0
    # The logarithms and logits of float32 values of at most 8.
    close = {"rtol": 0, "atol": 8 * 2**-22}
    for index, rows_of in ((source, slice(40, None)), (chosen.nonzero()[:, 0], chosen.nonzero()[:, 0])):
        found = after["logit_opacities"][rows_of].double()
        torch.testing.assert_close(found, torch.logit(expected)[index], **close)
        found = after["log_scales"][rows_of].double()
        wanted = before["log_scales"].double()[index] + factor[index].log()[:, None]
        torch.testing.assert_close(found, wanted, **close)
    for name in ("quats", "sh", "means"):
        assert torch.equal(after[name][40:], before[name][source])
        assert torch.equal(after[name][:40], before[name])
    for name in PARAMETERS:
        for moment in (after[f"{name}.first"], after[f"{name}.second"]):
            # Sampled rows and added rows are zero, the others as they were.
            assert (moment[40:] == 0).all()
            assert (moment[:40][chosen] == 0).all()
            assert (moment[:40][~chosen] == 1).all()


def test_relocation_moves_exactly_the_dead():
    ctx = with_dead()
    before = rows(ctx)
    assert relocate_dead(ctx, 0.005) == 10
    after = rows(ctx)
    dead = torch.zeros(60, dtype=torch.bool)
    dead[torch.arange(10) * 6] = True
    source = torch.stack([(before["means"] == m).all(1).nonzero()[0, 0] for m in after["means"][dead]])
    assert not dead[source].any()
    times = torch.bincount(source, minlength=60)
    opacity = torch.sigmoid(before["logit_opacities"].double())
    expected = kernels_reference.relocation(opacity, times + 1)[0]
    for name in ("quats", "sh"):
        assert torch.equal(after[name][dead], before[name][source])
    for index in (dead, times > 0):
        lookup = source if index is dead else (times > 0).nonzero()[:, 0]
        found = torch.sigmoid(after["logit_opacities"][index].double())
        torch.testing.assert_close(found, expected[lookup], rtol=1e-5, atol=0)
    untouched = ~dead & (times == 0)
    for name, value in before.items():
        assert torch.equal(after[name][untouched], value[untouched])
    for name in PARAMETERS:
        for moment in (after[f"{name}.first"], after[f"{name}.second"]):
            # Sampled rows are zero, relocated rows keep theirs.
            assert (moment[times > 0] == 0).all()
            assert (moment[dead] == 1).all()
    assert (ctx.gaussians.opacities() > 0.005).all()


def test_a_scene_of_the_dead_stays():
    g = gaussians(10)
    g.logit_opacities.fill_(-9.0)
    ctx = context(g)
    assert relocate_dead(ctx, 0.005) == 0


def test_new_opacities_stay_alive():
    """Of many copies of a faint Gaussian none falls below the bound for the dead."""
    g = gaussians(2)
    g.logit_opacities[:] = torch.logit(torch.tensor([0.02, 0.004]))
    ctx = context(g)
    for _ in range(20):
        grow(ctx, 3.0, 0.005)
        relocate_dead(ctx, 0.005)
    assert len(ctx.gaussians) == 10_000
    assert (ctx.gaussians.opacities() >= 0.005 * (1 - 2**-20)).all()


def test_sampling_is_proportional():
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 5.0, 0.0])
    drawn = sample(weights, 80_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=6).double()
    assert (counts[weights == 0] == 0).all()
    # Five standard deviations of a binomial count.
    share = weights.double() / 8
    assert ((counts - 80_000 * share).abs() <= 5 * (80_000 * share * (1 - share)).sqrt()).all()


def test_generator_decides_alone():
    """The same seed gives the same run, whatever the global generator does; another seed another."""
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))
        ctx = at_step(with_dead(seed=seed), 599)
        strategy = Mcmc(McmcConfig())
        ctx.set_numbers(strategy.numbers(ctx))
        strategy.after_step(ctx)
        results.append(rows(ctx))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
    assert not torch.equal(results[0]["means"], results[2]["means"])


def test_penalties_and_state():
    strategy = Mcmc(McmcConfig(opacity_penalty=0.02))
    assert strategy.penalties(with_dead(extent=5.0)) == {"opacity": 0.02, "scale": 0.01}
    strategy.load_state_dict(strategy.state_dict())


@pytest.mark.parametrize(
    "option", [{"refine_every": 0}, {"growth": 0.9}, {"min_opacity": 0.0}, {"noise": -1.0}]
)
def test_options_are_checked(option: dict):
    with pytest.raises(UsageError, match=f"mcmc: {next(iter(option))}"):
        McmcConfig(**option)
