"""Known answers of each part, and short runs beside the built-in strategies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from splat_ges import SHAPE, Ges
from splat_ges.frequency import blur, edge_mask

from splat import codecs
from splat.cli import main
from splat.core import UsageError
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.training.config import load_preset
from splat.training.run import train
from splat.training.session import Session, assemble, open_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ges") / "sample"
    return write_sample(folder, views=6, width=48, height=36, points=150, samples=1, truth=False)


def start(data: Path, **options: float) -> Session:
    config = replace(
        load_preset("cpu"), strategies=("mcmc", "ges"), steps=60, device="cpu", max_gaussians=300
    )
    return assemble(config, open_dataset(data, config), registry.build(config.strategies, {"ges": options}))


def test_the_plugin_is_found_by_its_entry_point():
    assert registry.available()["ges"] is Ges
    with pytest.raises(UsageError, match="loss_weight must not be negative"):
        registry.build(["mcmc", "ges"], {"ges": {"loss_weight": -1.0}})


def test_the_help_of_the_command_lists_its_options(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--strategies", "mcmc", "ges", "--help"]) == 0
    assert "--ges.loss-weight" in capsys.readouterr().out


def test_a_shape_of_zero_is_a_gaussian_and_others_scale_it(data: Path):
    trainer = start(data).trainer
    ctx, (_, ges) = trainer.ctx, trainer.strategies
    assert torch.equal(ges.transform(ctx.gaussians, ctx).log_scales, ctx.gaussians.log_scales)

    ctx.gaussians.extras[SHAPE][0] = 10.0  # 2 sigmoid(0.1 * 10)
    shown = ges.transform(ctx.gaussians, ctx)
    ratio = (shown.log_scales - ctx.gaussians.log_scales).exp()
    torch.testing.assert_close(ratio[0], torch.full((3,), 2 / (1 + math.exp(-1))))
    torch.testing.assert_close(ratio[1:], torch.ones_like(ratio[1:]))


def test_shapes_are_trained_follow_the_edits_and_are_baked(data: Path):
    trainer = start(data).trainer
    before = len(trainer.ctx.gaussians)
    for _ in range(3):
        trainer.step()
    ctx = trainer.ctx
    shapes = ctx.gaussians.extras[SHAPE]
    assert shapes.abs().max() > 0
    assert "ges_masked" in ctx.scalars

    ctx.edits.copy(torch.tensor([1, 2]))
    grown = ctx.gaussians.extras[SHAPE]
    assert grown.shape == (before + 2,)
    assert torch.equal(grown[-2:], shapes[[1, 2]])

    baked = trainer.baked()
    assert SHAPE not in baked.extras
    factor = 2 * torch.sigmoid(0.1 * grown)
    torch.testing.assert_close(baked.log_scales, ctx.gaussians.log_scales + factor.log()[:, None])


def test_without_its_loss_and_at_rate_zero_training_is_plain_training(data: Path):
    plain, with_ges = start(data, loss_weight=0.0, rate=0.0), start(data, loss_weight=0.0, rate=0.0)
    plain.trainer.strategies.pop()
    for session in (plain, with_ges):
        for _ in range(5):
            session.trainer.step()
    means = [session.trainer.ctx.gaussians.means for session in (plain, with_ges)]
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-5)


def test_a_whole_run_exports_and_resumes(data: Path, tmp_path: Path):
    config = replace(
        load_preset("cpu"), strategies=("mcmc", "ges"), steps=60, device="cpu", max_gaussians=300, eval=True
    )
    result = train(config, data, tmp_path / "run", strategies=registry.build(config.strategies), quiet=True)
    scene, _ = codecs.decode(result.scene)
    assert len(scene) == result.num_gaussians
    further = train(
        replace(config, steps=70),
        None,
        strategies=registry.build(config.strategies),
        resume=tmp_path / "run",
        quiet=True,
    )
    assert further.step == 70


def test_blur_keeps_constants_and_the_mean_of_a_point():
    flat = torch.full((20, 30), 0.3)
    torch.testing.assert_close(blur(flat, 2.0), flat)
    point = torch.zeros(41, 41)
    point[20, 20] = 1
    spread = blur(point, 2.0)
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    rows = torch.arange(41.0) - 20
    # Cut off at three standard deviations, a Gaussian loses 2.7% of its variance.
    assert (spread.sum(1) * rows**2).sum().item() == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize(("coarseness", "reach"), [(0.0, 1), (0.1, 4)])
def test_the_mask_is_as_wide_as_the_band_is_coarse(coarseness: float, reach: int):
    step = torch.zeros(24, 40, 3)
    step[:, 20:] = 1
    mask = edge_mask(step, coarseness, 0.01)
    columns = mask.any(0).nonzero()[:, 0]
    assert mask[:, 19:21].all()
    assert (columns.min(), columns.max()) == (20 - reach, 19 + reach)


def test_a_flat_photograph_has_no_detail():
    assert not edge_mask(torch.full((20, 20, 3), 0.7), 0.5, 0.5).any()
