"""Quantization-aware training: what is drawn is what the file holds; it follows edits and resumes to the bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splat import codecs
from splat.codecs.format import differences
from splat.core import UsageError
from splat.data import Dataset
from splat.data.sample import write_sample
from splat.raster import RenderOptions, render
from splat.strategies import registry
from splat.strategies.vq import VqConfig
from splat.strategies.vq.strategy import LABELS
from splat.training.config import InitConfig, TrainConfig, load_preset
from splat.training.export import exported
from splat.training.session import Session, assemble, open_dataset

CONFIG = TrainConfig(
    steps=120,
    strategies=("mcmc", "vq"),
    options={
        "default": {"refine_start": 10, "refine_every": 15, "refine_stop": 100, "reset_every": 0},
        "mcmc": {"refine_start": 10, "refine_every": 15, "growth": 1.15},
        "vq": {"start": 0.4, "words": 64, "palette": 64, "every": 12},
    },
    init=InitConfig(scale=0.5),
    sh_degree=1,
    sh_interval=20,
    max_gaussians=1200,
    device="cpu",
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    return write_sample(folder, views=16, width=80, height=60, points=800, samples=1, truth=False)


@pytest.fixture
def dataset(sample: Path) -> Iterator[Dataset]:
    opened = open_dataset(sample, CONFIG)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def session(
    dataset: Dataset, layout: str, density: str = "mcmc", state: dict | None = None, **vq: float
) -> Session:
    options = {**CONFIG.options, "vq": {**CONFIG.options["vq"], "layout": layout, **vq}}
    config = replace(CONFIG, strategies=(density, "vq"), options=options)
    return assemble(config, dataset, registry.build(config.strategies, config.options), state=state)


def run(chosen: Session, steps: int) -> Session:
    for _ in range(steps):
        chosen.trainer.step()
    return chosen


@pytest.mark.parametrize("layout", ["sog", "vq"])
@pytest.mark.parametrize("density", ["mcmc", "default"])
def test_the_file_draws_what_training_drew(
    dataset: Dataset, tmp_path: Path, layout: str, density: str
) -> None:
    """SOG keeps its centres to rounding, being logarithms there and back; all else is the same number."""
    chosen = run(session(dataset, layout, density), CONFIG.steps)
    ctx = chosen.trainer.ctx
    baked, metadata, _ = exported(chosen)
    path = tmp_path / f"scene.{layout}"
    codecs.encode(baked, path, metadata)
    found, _ = codecs.decode(path)
    form = codecs.registry.format_to_write(path)
    assert len(found) == len(baked) == len(ctx.gaussians) != 800
    if layout == "vq":
        # The same rows, in another order.
        rows = [
            torch.cat(
                [v.flatten(1) for v in (s.means, s.quats, s.log_scales, s.logit_opacities[:, None], s.sh)], 1
            )
            for s in (baked, found)
        ]
        (a, counts), (b, others) = (torch.unique(r, dim=0, return_counts=True) for r in rows)
        assert a.equal(b)
        assert counts.equal(others)
    else:
        assert form.order is not None
        off = differences(baked.select(form.order(baked, metadata, form.options())), found)
        # Float32's rounding of the centres' logarithms; the decoder's sigmoid; quaternions of unit length.
        assert off["means"] <= 2e-6 * float(baked.means.abs().max())
        assert max(off["log_scales"], off["sh0"], off["shN"]) == 0
        assert max(off["opacities"], off["quats"]) <= 1e-6
    camera = dataset.camera(0)
    pictures = [render(scene, camera, RenderOptions()).image for scene in (baked, found)]
    # The sum of what float32 leaves open in some hundred Gaussians a pixel.
    assert float((pictures[0] - pictures[1]).abs().max()) < 1e-3
    assert float((pictures[0] - pictures[1]).abs().mean()) < 1e-6
    # Quantized all the same: what is stored draws another picture.
    stored = render(ctx.gaussians.detach(), camera, RenderOptions()).image
    assert float((pictures[0] - stored).abs().mean()) > 1e-4


@pytest.mark.parametrize("layout", ["sog", "vq"])
def test_resumed_bit_for_bit(dataset: Dataset, layout: str) -> None:
    """Stopped before quantization, in the middle of it, and between two moves of the codewords."""
    straight = run(session(dataset, layout), 100).trainer.ctx
    for stop in (30, 60, 77):
        state = copy.deepcopy(run(session(dataset, layout), stop).state_dict())
        resumed = run(session(dataset, layout, state=state), 100 - stop).trainer.ctx
        for (key, a), (_, b) in zip(
            straight.gaussians.named_tensors(), resumed.gaussians.named_tensors(), strict=True
        ):
            assert torch.equal(a, b), key
        assert straight.edits.state[LABELS].equal(resumed.edits.state[LABELS])
        assert straight.cap == resumed.cap


def test_until_it_begins_nothing_changes(dataset: Dataset) -> None:
    """Measuring what changes cost leaves the run as it is without the strategy, to the bit."""
    with_vq = run(session(dataset, "vq"), 47).trainer
    config = replace(CONFIG, strategies=("mcmc",))
    plain = run(assemble(config, dataset, registry.build(("mcmc",), CONFIG.options)), 47).trainer
    assert with_vq.strategies[1]._samples == 2  # at steps 30 and 40; quantization begins after step 48
    for (key, a), (_, b) in zip(
        with_vq.ctx.gaussians.named_tensors(), plain.ctx.gaussians.named_tensors(), strict=True
    ):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("layout", ["sog", "vq"])
def test_what_is_drawn_has_the_signs_of_what_is_stored(dataset: Dataset, layout: str) -> None:
    """Gradients of -q would carry q the other way."""
    chosen = run(session(dataset, layout), 60)
    ctx = chosen.trainer.ctx
    if layout == "sog":  # which has no words that rotations are brought near to
        ctx.gaussians.quats[::3] *= -1
    stored, drawn = ctx.gaussians.quats, chosen.trainer.strategies[1].transform(ctx.gaussians, ctx).quats
    assert bool(((stored * drawn).sum(1) > 0).all())


def test_view_dependent_colours_learn_faster_once_quantized(dataset: Dataset) -> None:
    """As fast as covers the distance to their words in a fortieth of the steps, and no slower than in other runs."""
    for spread in (0.0, 1.0):
        chosen = run(session(dataset, "vq"), 46)
        ctx, strategy = chosen.trainer.ctx, chosen.trainer.strategies[1]
        before = ctx.rates["shN"] / ctx.rates["sh0"]
        sh = ctx.gaussians.sh.clone()
        sh[:, 1:] *= spread
        sh[:, 1:] += spread * torch.randn(sh[:, 1:].shape, generator=torch.Generator().manual_seed(0))
        ctx.edits.replace("sh", None, sh, zero_moments=False)
        run(chosen, 2)  # quantization begins after the second
        drawn = strategy.transform(ctx.gaussians, ctx)
        distance = float((ctx.gaussians.sh - drawn.sh)[:, 1:].square().mean().sqrt())
        run(chosen, 20)
        fallen = ctx.rates["sh0"] / ctx.config.rates.sh0
        assert fallen < 1
        pace = max(before * ctx.config.rates.sh0, distance / (0.6 * 120 / 40))
        assert (pace > before * ctx.config.rates.sh0) == (spread > 0)
        assert ctx.rates["shN"] == pytest.approx(pace * fallen, rel=1e-5)


def test_the_fused_step_stays(dataset: Dataset) -> None:
    chosen = session(dataset, "vq")
    calls = []
    step = chosen.trainer.ctx.optimizer.step_fused
    chosen.trainer.ctx.optimizer.step_fused = lambda *a: (calls.append(a[1]), step(*a))
    run(chosen, 60)
    assert len(calls) == 60
    assert calls[-1] is not chosen.trainer.ctx.gaussians


def test_a_higher_rate_makes_smaller_files(dataset: Dataset, tmp_path: Path) -> None:
    sizes, errors = [], []
    for rate in (1e-3, 1e-1):
        chosen = run(session(dataset, "vq", rate=rate), CONFIG.steps)
        baked, metadata, _ = exported(chosen)
        codecs.encode(baked, tmp_path / "a.vq", metadata)
        sizes.append((tmp_path / "a.vq").stat().st_size)
        errors.append(chosen.trainer.strategies[1]._error)
    assert sizes[1] < 0.8 * sizes[0]
    assert errors[1] > errors[0]


def test_what_is_pruned_is_not_grown_again(dataset: Dataset) -> None:
    chosen = run(session(dataset, "vq", rate=0.2), CONFIG.steps)
    ctx = chosen.trainer.ctx
    assert ctx.cap == len(ctx.gaussians) < 1200
    kept = run(session(dataset, "vq", rate=0.2, prune=0), CONFIG.steps).trainer.ctx
    assert len(kept.gaussians) == kept.cap == 1200


def test_options_are_checked() -> None:
    for name, value in (
        ("rate", 0),
        ("start", 1.0),
        ("settle", 0.1),
        ("words", 1),
        ("every", 0),
        ("prune", -1),
    ):
        with pytest.raises(UsageError, match=f"vq: {name}"):
            VqConfig(**{name: value})


def test_the_preset_is_at_hand() -> None:
    preset = load_preset("compact")
    assert preset.strategies == ("mcmc", "vq")
    registry.build(preset.strategies, preset.options)
