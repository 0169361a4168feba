"""Which Gaussians stay, and pruning within a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.codecs import search
from splat.core import Gaussians, UsageError
from splat.core.rotations import quat_to_matrix
from splat.core.transforms import Similarity, transform_gaussians
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.strategies.spectral import METHODS, PUBLISHED, SpectralConfig, Spectrum, chosen
from splat.strategies.spectral.selection import _chances, both_ends, drawn, extremes, spectral_scores, spread
from splat.training.config import load_preset
from splat.training.session import Session, assemble, open_dataset

SCORES = torch.tensor([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0])


def scene(count: int = 60) -> Gaussians:
    r = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(count, 3, generator=r),
        quats=torch.randn(count, 4, generator=r),
        log_scales=torch.randn(count, 3, generator=r),
        logit_opacities=torch.randn(count, generator=r),
        sh=torch.randn(count, 4, 3, generator=r),
    )


@pytest.mark.parametrize(
    ("gamma", "count", "kept"),
    [(0.5, 4, {2, 6, 1, 5}), (1.0, 3, {2, 6, 4}), (0.0, 2, {1, 5}), (0.5, 8, set(range(8)))],
)
def test_both_ends(gamma: float, count: int, kept: set[int]):
    assert set(both_ends(SCORES, count, gamma, extremes).nonzero()[:, 0].tolist()) == kept


def test_drawing_follows_the_scores():
    """Of two items one is drawn with the chance w0 / (w0 + w1); 4,000 draws stay within 5 standard deviations."""
    draw = drawn(torch.Generator().manual_seed(0))
    draws = sum(int(both_ends(torch.tensor([3.0, 1.0]), 1, 1.0, draw)[0]) for _ in range(4000))
    assert abs(draws / 4000 - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5
    draws = sum(int(both_ends(torch.tensor([3.0, 1.0]), 1, 0.0, draw)[0]) for _ in range(4000))
    assert abs(draws / 4000 - 0.25) < 5 * (0.75 * 0.25 / 4000) ** 0.5


@given(st.integers(0, 99), st.integers(1, 199), st.floats(0, 3))
def test_spread_takes_as_many_everywhere_as_the_weights_are_worth(seed: int, count: int, contrast: float):
    """Along a line: in any stretch of the curve the number taken is the sum of the chances, to within one."""
    r = torch.Generator().manual_seed(seed)
    weights = torch.randn(200, dtype=torch.float64, generator=r).mul(contrast).exp()
    places = torch.stack([torch.arange(200.0), torch.zeros(200), torch.zeros(200)], 1)
    shuffled = torch.randperm(200, generator=r)
    taken = torch.zeros(200, dtype=torch.bool)
    taken[shuffled[spread(places[shuffled])(weights[shuffled], torch.arange(200), count)]] = True
    assert taken.sum() == count
    chances = _chances(weights, count)
    torch.testing.assert_close(chances.sum(), torch.tensor(float(count), dtype=torch.float64))
    free = chances < 1
    assert taken[~free].all()
    if free.any():
        ratio = chances[free] / weights[free]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    drift = taken.double().cumsum(0) - chances.cumsum(0)
    assert drift.abs().max() <= 0.5 + 1e-6  # of any stretch: the difference of two such


def test_spread_takes_what_hides_nobody_last():
    places = torch.rand(6, 3)
    weights = torch.tensor([-1.0, 2.0, -3.0, 1.0, 0.0, -2.0])
    assert set(spread(places)(weights, torch.arange(6), 4).tolist()) == {1, 3, 4, 0}


@pytest.mark.parametrize("pick", ["extremes", "drawn", "spread"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_each_way_of_picking_keeps_as_many_as_asked(pick, gamma: float):
    for signals in (("opacity",), ("position",), ("position", "opacity")):
        spectrum = Spectrum(gamma=gamma, pick=pick, signals=signals)
        for count in (1, 7, 31, 60):
            assert chosen(scene(), count, "spectral", spectrum=spectrum).sum() == count


@pytest.mark.parametrize("method", METHODS)
def test_each_method_keeps_as_many_as_asked(method):
    g = scene()
    contribution = torch.arange(60.0)
    keep = chosen(g, 20, method, contribution=contribution, generator=torch.Generator().manual_seed(1))
    assert keep.sum() == 20
    if method == "opacity":
        assert g.logit_opacities[keep].min() > g.logit_opacities[~keep].max()
    if method == "contribution":
        assert keep[40:].all()


def test_signals_can_differ():
    g = scene()
    of = {
        signals: chosen(g, 20, "spectral", spectrum=Spectrum(signals=signals))
        for signals in (("position",), ("colour",), ("position", "opacity"))
    }
    assert not torch.equal(of["position",], of["colour",])
    assert not torch.equal(of["position",], of["position", "opacity"])


def test_opacities_count_above_those_of_their_neighbours():
    """On a line of equals one is more opaque and one less: the first stays, its neighbours go before the others."""
    g = scene(21)
    g.means = torch.stack([torch.arange(21.0), torch.zeros(21), torch.zeros(21)], 1)
    g.logit_opacities = torch.zeros(21)
    g.logit_opacities[5], g.logit_opacities[15] = 2.0, -2.0
    scores = spectral_scores(g, Spectrum(neighbours=2))
    assert scores.argmax() == 5
    assert scores.argmin() == 15
    assert (scores[[4, 6]] < 0).all()
    assert (scores[[14, 16]] > 0).all()
    torch.testing.assert_close(scores[[0, 1, 9, 10, 20]], torch.zeros(5, dtype=torch.float64))
    assert search.ranking("spectral", g)[0] == 5


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50), size=st.floats(-2, 2))
def test_rotation_translation_size_and_order_change_no_score(seed: int, shift: float, size: float):
    """In float64, where a scene 0.01 as large 50 units away is moved to within 1e-12 of its size."""
    r = torch.Generator().manual_seed(seed)
    g, order = scene(), torch.randperm(60, generator=r)
    g = replace(g, **{name: getattr(g, name).double() for name in ("means", "logit_opacities", "sh")})
    turn = quat_to_matrix(torch.randn(4, dtype=torch.float64, generator=r))
    transform = Similarity(turn, torch.full((3,), shift, dtype=torch.float64), 10**size)
    moved = transform_gaussians(g, transform).select(order)
    for signals in (("opacity",), ("colour",), ("position",), ("position", "colour", "opacity")):
        spectrum = Spectrum(signals=signals, neighbours=6)
        before = spectral_scores(g, spectrum)[order]
        torch.testing.assert_close(spectral_scores(moved, spectrum), before, rtol=1e-9, atol=1e-9)


def test_copies_at_one_place_are_neighbours_of_the_same():
    g = scene(12)
    both = g.select(torch.cat([torch.arange(12), torch.tensor([7, 7])]))
    scores = spectral_scores(both, Spectrum(neighbours=4))
    assert scores[7] == scores[12] == scores[13]


def test_what_was_published_is_at_hand():
    g = scene()
    keep = chosen(g, 20, "spectral", spectrum=PUBLISHED)
    answers = spectral_scores(g, PUBLISHED)
    order = answers.argsort(descending=True)
    assert set(keep.nonzero()[:, 0].tolist()) == {*order[:10].tolist(), *order[-10:].tolist()}


def test_wrong_options():
    for wrong in (
        {"keep": 0.0},
        {"gamma": 2.0},
        {"method": "x"},
        {"start": 0.9},
        {"times": 3},
        {"signals": ()},
    ):
        with pytest.raises(UsageError, match="spectral:"):
            SpectralConfig(**wrong)
    with pytest.raises(UsageError, match="needs the cameras"):
        chosen(scene(), 5, "contribution")
    with pytest.raises(UsageError, match="choose from spectral"):
        chosen(scene(), 5, "luck")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spectral") / "sample"
    return write_sample(folder, views=6, width=48, height=36, points=200, samples=1, truth=False)


def start(data: Path, state=None, dense: str = "mcmc", **options) -> Session:
    config = replace(
        load_preset("cpu"), strategies=(dense, "spectral"), steps=40, device="cpu", max_gaussians=400
    )
    dense_options = {"refine_start": 2, "refine_every": 3} if dense == "mcmc" else {}
    strategies = registry.build(config.strategies, {dense: dense_options, "spectral": options})
    return assemble(config, open_dataset(data, config), strategies, state=state)


@pytest.mark.parametrize("dense", ["mcmc", "default"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_prunes_once_and_is_not_filled_again(data: Path, method, dense: str):
    trainer = start(data, dense=dense, keep=0.3, start=0.5, method=method, window=10).trainer
    while trainer.ctx.step < 19:
        trainer.step()
    before = len(trainer.ctx.gaussians)
    trainer.step()
    left = len(trainer.ctx.gaussians)
    # The density control may have changed the number in the same step, before the pruning.
    assert abs(left - round(0.3 * before)) <= 0.3 * 0.1 * before + 1
    while trainer.ctx.step < 36:
        trainer.step()
    assert len(trainer.ctx.gaussians) <= left


def test_contributions_are_asked_for_only_where_they_are_added_up(data: Path):
    """In the window before each pruning and nowhere else, scores included; what comes of it is the same."""
    options = {"method": "contribution", "keep": 0.5, "start": 0.5, "stop": 0.75, "times": 2, "window": 4}
    trainer, asked = start(data, **options).trainer, []
    trainer.observers.append(
        lambda t: asked.append(t.ctx.step) if t.ctx.output.contribution is not None else None
    )
    trainer.end = 34
    trainer.run()
    assert trainer.strategies[1].steps(40) == [20, 30]
    assert asked == [17, 18, 19, 20, 27, 28, 29, 30]
    trainer.ctx.training = False
    assert not trainer.strategies[1].needed(trainer.ctx)

    always = start(data, **options).trainer
    always.strategies[1].needed = lambda ctx: frozenset({"contribution"})
    always.end = 34
    always.run()
    assert torch.equal(always.ctx.gaussians.means, trainer.ctx.gaussians.means)


def test_several_prunings_leave_the_share_asked_for(data: Path):
    session = start(data, dense="default", keep=0.25, start=0.25, stop=0.75, times=3)
    first = len(session.trainer.ctx.gaussians)
    session.trainer.end = 40
    session.trainer.run()
    assert session.trainer.strategies[1].steps(40) == [10, 20, 30]
    assert len(session.trainer.ctx.gaussians) == pytest.approx(0.25 * first, abs=3)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(data: Path):
    whole = start(data, keep=0.5, pick="drawn").trainer
    whole.end = 34
    whole.run()

    first = start(data, keep=0.5, pick="drawn")
    first.trainer.end = 26  # after the pruning: the cap must come back as well
    first.trainer.run()
    second = start(data, state=first.state_dict(), keep=0.5, pick="drawn").trainer
    second.end = 34
    second.run()
    assert torch.equal(second.ctx.gaussians.means, whole.ctx.gaussians.means)
    assert second.ctx.cap == whole.ctx.cap
