"""Adaptive density control, on a run without a trainer."""

from __future__ import annotations

import math

import pytest
import torch
from fake_run import at_step, context, gaussians, rows

from splat.core import Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.core.rotations import quat_to_matrix
from splat.raster import RenderOutput
from splat.strategies.default import Default, DefaultConfig
from splat.training.context import Context


def output(gradient: torch.Tensor, radii: torch.Tensor | None = None, absolute: bool = False) -> RenderOutput:
    """What a render leaves behind: [N, 2] gradients per pixel, [N] radii."""
    picture = torch.zeros(20, 40, 3)
    seen = torch.ones(len(gradient), dtype=torch.int32) if radii is None else radii
    name = "means2d_absgrad" if absolute else "means2d_grad"
    return RenderOutput(picture, picture[..., 0], radii=seen, **{name: gradient})


def run_of(g: Gaussians, config: DefaultConfig | None = None, **options) -> tuple[Default, Context]:
    strategy, ctx = Default(config or DefaultConfig()), context(g, **options)
    strategy.setup(ctx)
    return strategy, ctx


def sized(scales: list[float]) -> Gaussians:
    """One Gaussian a scale: its longest axis, the others half of it."""
    g = gaussians(len(scales))
    longest = torch.tensor(scales)
    g.log_scales = torch.stack([longest / 2, longest, longest / 2], 1).log()
    return g


def with_gradients(strategy: Default, ctx: Context, values: list[float]) -> None:
    """One view in which the Gaussians have these gradients, in normalised device coordinates."""
    x = torch.tensor(values) / (ctx.camera.width / 2)
    ctx.output = output(torch.stack([x, torch.zeros_like(x)], 1), absolute=strategy.config.absgrad)
    strategy.after_backward(ctx)


def test_statistics_are_in_device_coordinates_and_means_over_views():
    """40 x 20 pixels span two units each way: a gradient per pixel counts 20 fold and 10 fold."""
    strategy, ctx = run_of(gaussians(3))
    ctx.output = output(torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 8.0]]), torch.tensor([1, 2, 3]))
    strategy.after_backward(ctx)
    ctx.output = output(torch.tensor([[0.0, 1.0], [0.0, 0.0], [-3.0, -8.0]]), torch.tensor([1, 0, 3]))
    strategy.after_backward(ctx)
    assert ctx.edits.state["gradient_sum"].tolist() == [70.0, 40.0, 200.0]
    assert ctx.edits.state["view_count"].tolist() == [2, 1, 2]


@pytest.mark.parametrize(("absgrad", "threshold"), [(False, 2e-4), (True, 8e-4)])
def test_thresholds(absgrad: bool, threshold: float):
    strategy, ctx = run_of(sized([0.005] * 3), DefaultConfig(absgrad=absgrad))
    assert strategy.needs == {"absgrad" if absgrad else "means2d_grad", "radii"}
    with_gradients(strategy, ctx, [0.99 * threshold, 1.01 * threshold, 0.0])
    assert strategy.grow(ctx) == (1, 0)
    assert torch.equal(ctx.gaussians.means[3], ctx.gaussians.means[1])


def test_small_ones_are_duplicated_and_large_ones_split():
    """The bound is 0.01 of the scene extent, on the longest axis."""
    strategy, ctx = run_of(sized([0.019, 0.021, 0.5, 0.5]), extent=2.0)
    before = rows(ctx)
    with_gradients(strategy, ctx, [1.0, 1.0, 1.0, 0.0])
    assert strategy.grow(ctx) == (1, 2)
    after = rows(ctx)
    # What is split leaves its row; copies come last, children after them: first ones, then second ones.
    assert len(ctx.gaussians) == 7
    origin = [0, 3, 0, 1, 2, 1, 2]
    for name in ("quats", "logit_opacities", "sh"):
        assert torch.equal(after[name], before[name][origin])
    assert torch.equal(after["means"][:3], before["means"][[0, 3, 0]])
    shrunk = torch.tensor([0, 0, 0, 1, 1, 1, 1])[:, None] * math.log(1.6)
    torch.testing.assert_close(after["log_scales"], before["log_scales"][origin] - shrunk, rtol=0, atol=1e-6)
    for name in PARAMETERS:
        for moment in (after[f"{name}.first"], after[f"{name}.second"]):
            assert (moment[:2] == 1).all()
            assert (moment[2:] == 0).all()


def test_children_are_drawn_from_their_parent():
    """In the parent's own axes the offsets of many children are N(0, scale^2)."""
    count = 4000
    one = sized([0.3])
    one.log_scales = torch.tensor([[0.1, 0.3, 0.02]]).log()
    g = one.select(torch.zeros(count, dtype=torch.int64))
    strategy, ctx = run_of(g, cap=2 * count)
    with_gradients(strategy, ctx, [1.0] * count)
    assert strategy.grow(ctx) == (0, count)
    offsets = (ctx.gaussians.means - one.means) @ quat_to_matrix(one.quats)[0]
    samples = offsets / one.scales()
    # Five standard deviations of the mean and of the covariance of 2 * count samples.
    bound = 5 / math.sqrt(2 * count)
    assert (samples.mean(0).abs() < bound).all()
    assert ((samples.T @ samples / (2 * count) - torch.eye(3)).abs() < bound * math.sqrt(2)).all()


def test_the_cap_takes_the_highest_gradients():
    strategy, ctx = run_of(sized([0.005, 0.005, 0.5, 0.5, 0.005]), cap=7)
    means = ctx.gaussians.means.clone()
    with_gradients(strategy, ctx, [0.1, 0.5, 0.2, 0.4, 0.3])
    assert strategy.grow(ctx) == (1, 1)
    assert len(ctx.gaussians) == 7
    assert torch.equal(ctx.gaussians.means[:5], means[[0, 1, 2, 4, 1]])
    with_gradients(strategy, ctx, [1.0] * 7)
    assert strategy.grow(ctx) == (0, 0)


def test_pruning():
    """Opacity under 0.005; longest axis over 0.1 of the extent once opacities have been reset."""
    g = sized([0.02, 0.02, 0.19, 0.21])
    g.logit_opacities = torch.logit(torch.tensor([0.0049, 0.0051, 0.5, 0.5]))
    strategy, ctx = run_of(g, extent=2.0)
    means = g.means.clone()
    assert strategy.prune(ctx, large=False) == 1
    assert torch.equal(ctx.gaussians.means, means[1:])
    assert strategy.prune(ctx, large=True) == 1
    assert torch.equal(ctx.gaussians.means, means[1:3])


def test_reset_lowers_opacities_and_forgets_their_moments():
    g = gaussians(3)
    g.logit_opacities = torch.logit(torch.tensor([0.008, 0.02, 0.9]))
    strategy, ctx = run_of(g)
    strategy.reset_opacities(ctx)
    assert ctx.gaussians.opacities().tolist() == pytest.approx([0.008, 0.01, 0.01], rel=1e-6)
    for name in PARAMETERS:
        for moment in ctx.optimizer.moments[name]:
            assert (moment == (0 if name == "logit_opacities" else 1)).all()


def test_schedule():
    """Of a run of 30,000: refinement every 100 for 500 < step < 15,000, resets every 3000, over-large
    Gaussians pruned from the first reset on; counting steps from one. Statistics begin anew each time."""
    grown, pruned_large, reset = [], [], []
    for taken in [*range(100, 16_000, 100), 550, 601, 3001, 14_999]:
        strategy, ctx = run_of(sized([0.005, 0.005, 0.2]))
        at_step(ctx, taken - 1)
        with_gradients(strategy, ctx, [1.0, 0.0, 0.0])
        ctx.gaussians.logit_opacities.fill_(0.0)
        strategy.after_step(ctx)
        scales = ctx.gaussians.scales().amax(1)
        if (scales < 0.01).sum() == 3:
            grown.append(taken)
            assert (ctx.edits.state["gradient_sum"] == 0).all()
            assert (ctx.edits.state["view_count"] == 0).all()
        if not (scales > 0.1).any():
            pruned_large.append(taken)
        if (ctx.gaussians.opacities() < 0.02).all():
            reset.append(taken)
    assert grown == list(range(600, 15_000, 100))
    assert pruned_large == list(range(3100, 15_000, 100))
    assert reset == [3000, 6000, 9000, 12_000]


@pytest.mark.parametrize(("steps", "reset"), [(3000, False), (6000, False), (6002, True)])
def test_no_reset_in_the_second_half(steps: int, reset: bool):
    """A run of 3000 steps would otherwise end right after a reset."""
    strategy, ctx = run_of(gaussians(5), steps=steps)
    strategy.after_step(at_step(ctx, 2999))
    assert (ctx.gaussians.opacities() < 0.02).all() == reset


def test_asks_for_gradients_until_refinement_ends():
    strategy, ctx = run_of(gaussians(5), steps=200)
    for step, asked in ((0, strategy.needs), (98, strategy.needs), (99, frozenset()), (150, frozenset())):
        at_step(ctx, step)
        assert strategy.needed(ctx) == asked, step
    at_step(ctx, 0)
    ctx.training = False  # a picture to score
    assert strategy.needed(ctx) == frozenset()


def test_stop_as_given():
    strategy, ctx = run_of(gaussians(5), DefaultConfig(refine_stop=3100), steps=3200)
    strategy.after_step(at_step(ctx, 2999))
    assert (ctx.gaussians.opacities() < 0.02).all()


def test_statistics_survive_a_checkpoint():
    strategy, ctx = run_of(sized([0.005] * 4))
    with_gradients(strategy, ctx, [1.0, 0.0, 1.0, 0.0])
    resumed, again = run_of(sized([0.1] * 4))
    again.main.load_state_dict(ctx.main.state_dict())
    resumed.load_state_dict(strategy.state_dict())
    assert resumed.grow(again) == (2, 0)
    assert torch.equal(again.gaussians.means[4:], ctx.gaussians.means[[0, 2]])


def test_statistics_follow_edits():
    strategy, ctx = run_of(sized([0.005] * 4))
    with_gradients(strategy, ctx, [1.0, 2.0, 3.0, 4.0])
    ctx.edits.remove(torch.tensor([True, False, False, False]))
    ctx.edits.copy(torch.tensor([0]))
    assert ctx.edits.state["gradient_sum"].tolist() == pytest.approx([2.0, 3.0, 4.0, 0.0])


def test_generator_decides_alone():
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))
        strategy, ctx = run_of(sized([0.5] * 4), seed=seed)
        with_gradients(strategy, ctx, [1.0] * 4)
        strategy.grow(ctx)
        results.append(ctx.gaussians.means)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    "option", [{"refine_every": 0}, {"reset_every": -1}, {"reset_opacity": 0.004}, {"split_above": 0.0}]
)
def test_options_are_checked(option: dict):
    with pytest.raises(UsageError, match=f"default: {next(iter(option))}"):
        DefaultConfig(**option)
