"""The neural head: a no-op at first, trained with the scene, part of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splat.core import UsageError
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.strategies.compensation import Compensation, CompensationConfig, UNet
from splat.strategies.compensation.network import CHANNELS, seeded
from splat.strategies.compensation.strategy import FEATURES
from splat.strategies.mcmc import McmcConfig
from splat.training.config import load_preset
from splat.training.session import Session, assemble, open_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compensation") / "sample"
    return write_sample(folder, views=8, width=50, height=38, points=300, samples=1, truth=False)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(data: Path, state=None, steps: int = 40, **options) -> Session:
    config = replace(
        load_preset("cpu"),
        strategies=("mcmc", "compensation"),
        steps=steps,
        device="cpu",
        max_gaussians=400,
        eval=True,
    )
    strategies = registry.build(config.strategies, {"compensation": options})
    return assemble(config, open_dataset(data, config), strategies, state=state)


@pytest.mark.parametrize("size", CHANNELS)
@pytest.mark.parametrize(("height", "width"), [(38, 50), (16, 16), (5, 3)])
def test_the_network_takes_any_size_of_image_and_begins_as_zero(size, height: int, width: int):
    network = UNet(11, size)
    answer = network(torch.rand(11, height, width))
    assert answer.shape == (3, height, width)
    assert torch.equal(
        answer, network.leave.bias.detach().reshape(3, 2, 2)[:, _rows(height)][:, :, _rows(width)]
    )


def _rows(count: int) -> torch.Tensor:
    return torch.arange(count) % 2


def test_its_weights_depend_on_its_seed_alone():
    state = torch.random.get_rng_state()
    first, second, third = seeded(11, "small", 1), seeded(11, "small", 1), seeded(11, "small", 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.enter.weight, second.enter.weight)
    assert not torch.equal(first.enter.weight, third.enter.weight)


def test_nothing_changes_before_its_start(data: Path):
    session = start(data, start=0.5)
    session.trainer.end = 5
    session.trainer.run()
    plain = session.score(0.0)
    session.trainer.strategies.pop()
    assert session.score(0.0).psnr == plain.psnr


@pytest.mark.parametrize("output", ["multiplicative", "residual"])
@pytest.mark.parametrize("features", [0, 4])
def test_it_learns_what_the_gaussians_cannot(data: Path, output, features: int):
    """The scene stands still (all rates 0): what is gained is the head's doing, on views that it never saw too."""
    session = start(data, start=0.0, output=output, features=features, rate=1e-2, steps=30)
    still = dict.fromkeys(("means", "quats", "log_scales", "logit_opacities", "sh0", "shN"), 0.0)
    session.trainer.ctx.optimizer.rates = lambda step: {**still, FEATURES: 1e-2}
    session.trainer.strategies[0].config = McmcConfig(noise=0.0)
    before = session.score(0.0).psnr
    session.trainer.run()
    assert session.score(0.0).psnr > before + 0.5


def test_features_are_trained_in_the_fused_step_and_follow_edits(data: Path):
    session = start(data, start=0.0, features=4)
    trainer = session.trainer
    before = trainer.ctx.gaussians.extras[FEATURES].clone()
    trainer.step()
    trainer.step()  # in the first one the network answers zero, whatever the features
    assert trainer.ctx.output.features.shape[-1] == 4
    assert trainer.ctx.gaussians.means.grad is None  # no gradients were held
    assert not torch.equal(trainer.ctx.gaussians.extras[FEATURES], before)
    trainer.ctx.edits.copy(torch.tensor([3]))
    extras = trainer.ctx.gaussians.extras[FEATURES]
    assert torch.equal(extras[-1], extras[3])


def test_scores_and_pictures_have_the_head_and_a_resumed_run_goes_on_with_it(data: Path):
    whole = start(data, start=0.2).trainer
    whole.end = 24
    whole.run()

    first = start(data, start=0.2)
    first.trainer.end = 16
    first.trainer.run()
    second = start(data, state=first.state_dict(), start=0.2)
    assert second.score(0.0).psnr == first.score(0.0).psnr
    second.trainer.end = 24
    second.trainer.run()
    assert torch.equal(second.trainer.ctx.gaussians.means, whole.ctx.gaussians.means)

    head = second.trainer.strategies[1]
    assert head.export(second.trainer.ctx)["heads"]["compensation"]["bytes"] > 0
    with_head = second.score(0.0).psnr
    second.trainer.strategies.remove(head)
    assert second.score(0.0).psnr != with_head


def test_two_strategies_cannot_both_blend_features(data: Path):
    session = start(data, start=0.0)
    other = Compensation(CompensationConfig(start=0.0))
    other.name = "other"  # type: ignore[misc]
    session.trainer.strategies.append(other)
    with pytest.raises(UsageError, match="compensation and other both do"):
        session.trainer.step()


def test_wrong_options():
    for wrong in ({"features": -1}, {"start": 1.0}):
        with pytest.raises(UsageError, match="compensation:"):
            CompensationConfig(**wrong)
