"""The neural head: a no-op at first, trained with the scene, part of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splat.core import UsageError
from splat.core.heads import SavedHead
from splat.data.sample import write_sample
from splat.raster import RenderOptions, draw
from splat.strategies import registry
from splat.strategies.compensation import Compensation, CompensationConfig, UNet
from splat.strategies.compensation.network import CHANNELS, seeded
from splat.strategies.compensation.strategy import FEATURES
from splat.strategies.mcmc import McmcConfig
from splat.training.config import load_preset
from splat.training.export import baked
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
    image = torch.rand(height, width, 11).permute(2, 0, 1)
    assert torch.equal(network(image), torch.zeros(3, height, width))
    torch.nn.init.normal_(network.leave.weight)
    assert (network(image) != 0).all()  # every pixel is reached


def test_its_numbers_make_it_again():
    network = seeded(7, "small", 3)
    torch.nn.init.normal_(network.leave.weight)
    other = UNet(7, "small")
    other.load(network.weights())
    image = torch.rand(7, 9, 12)
    assert torch.equal(other(image), network(image))
    with pytest.raises(ValueError, match="weights, where"):
        other.load(network.weights()[1:])


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

    with_head = second.score(0.0).psnr
    second.trainer.strategies.pop()
    assert second.score(0.0).psnr != with_head


@pytest.mark.parametrize("options", [{}, {"features": 0, "output": "residual", "size": "medium"}])
def test_who_draws_elsewhere_has_the_same_picture(data: Path, options):
    session = start(data, start=0.2, **options)
    trainer, camera = session.trainer, session.dataset.camera(0)
    behind = torch.zeros(3)
    assert trainer.heads() == ()  # not in use yet
    trainer.end = 12
    trainer.run()
    scene, metadata = baked(session)
    scene = scene.clone()  # what it was given is trained on
    heads, notes = registry.heads(metadata["heads"], torch.device("cpu"))
    expected = trainer.draw(trainer.baked(), camera, behind).detach()
    assert notes == []
    for made in (heads, trainer.heads()):
        assert torch.equal(draw(scene, camera, RenderOptions(background=behind), made).image, expected)
    trainer.end = 16
    trainer.run()  # goes on with other weights; what was handed out stays
    assert torch.equal(draw(scene, camera, RenderOptions(background=behind), heads).image, expected)
    if options.get("features") != 0:
        with pytest.raises(UsageError, match="needs the scene's compensation"):
            draw(replace(scene, extras={}), camera, RenderOptions(), heads)


def test_heads_that_do_not_fit_are_named():
    head = {"compensation": SavedHead({"size": "small", "features": 0, "output": "residual"}, torch.zeros(3))}
    cpu = torch.device("cpu")
    for saved, reason in (
        (head, "3 weights"),
        ({"unheard": head["compensation"]}, "no strategy of that name"),
        ({"mcmc": head["compensation"]}, "has no head"),
        ({"compensation": SavedHead({"size": "huge"}, torch.zeros(3))}, "size 'huge'"),
        ({"compensation": replace(head["compensation"], features="x")}, "0 features"),
    ):
        found, notes = registry.heads(saved, cpu)
        assert found == ()
        assert len(notes) == 1
        assert reason in notes[0]


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
