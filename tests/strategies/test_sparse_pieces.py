"""Each piece of sparse_view on its own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from splat.core import Camera, Gaussians, UsageError
from splat.data import Dataset, read_scene
from splat.data.sample import render_sample, write_sample
from splat.data.sample_scene import build_world
from splat.raster import RenderOptions, RenderOutput, render
from splat.raster.constants import NEAR
from splat.strategies.sparse.binocular import Binocular, BinocularConfig
from splat.strategies.sparse.consistency import Consistency, ConsistencyConfig
from splat.strategies.sparse.decay import Decay, DecayConfig
from splat.strategies.sparse.dropout import Dropout, DropoutConfig
from splat.strategies.sparse.floaters import Floaters, FloatersConfig, hanging, isolated
from splat.strategies.sparse.prior import DepthPrior, PriorConfig, pearson, scale_shift
from splat.strategies.sparse.second import SecondConfig
from splat.strategies.sparse.sh import ShConfig, ShRestraint
from splat.strategies.sparse.size import Size, SizeConfig, shares
from splat.strategies.sparse.smoothness import SmoothnessConfig
from splat.strategies.sparse.unpool import Unpool, UnpoolConfig
from splat.training.config import TrainConfig
from splat.training.context import MAIN, Context, Field
from splat.training.optim import Rates
from splat.training.views import Views


def scene(n: int = 50, opacity: float = 0.4) -> Gaussians:
    generator = torch.Generator().manual_seed(1)
    return Gaussians(
        means=torch.randn(n, 3, generator=generator),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        log_scales=torch.full((n, 3), -2.0),
        logit_opacities=torch.full((n,), math.log(opacity / (1 - opacity))),
        sh=torch.rand(n, 16, 3, generator=generator),
    )


def context(gaussians: Gaussians, step: int = 0, steps: int = 100, cap: int = 10_000, **values) -> Context:
    field = Field(MAIN, gaussians, Rates(), 1.0, steps)
    config = TrainConfig(sh_interval=10)
    ctx = Context(config, field, 1.0, steps, cap, torch.Generator().manual_seed(3), step=step)
    for name, value in values.items():
        setattr(ctx, name, value)
    return ctx


@pytest.mark.parametrize(
    "make",
    [
        lambda: DropoutConfig(rate=1.0),
        lambda: DropoutConfig(neighbours=0),
        lambda: DecayConfig(rate=0.0),
        lambda: DecayConfig(most=0.0),
        lambda: SizeConfig(most=0.0),
        lambda: SmoothnessConfig(weight=-1.0),
        lambda: BinocularConfig(shift=0.0),
        lambda: ConsistencyConfig(tolerance=0.0),
        lambda: FloatersConfig(gap=-1.0),
        lambda: ShConfig(degree=4),
        lambda: SecondConfig(every=0),
        lambda: UnpoolConfig(above=0.0),
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(make):
    with pytest.raises(UsageError, match=r"^sparse_view: \w+\.\w+ must"):
        make()


def test_dropout_keeps_the_mean_opacity_and_spares_what_is_scored():
    gaussians = scene(20_000)
    piece, ctx = Dropout(DropoutConfig(rate=0.4)), context(gaussians, step=50)
    shown = piece.transform(gaussians, ctx)
    rate = 0.2  # half of the run, half of the rate
    gone = shown.opacities() < 1 / 255
    # Binomial: four standard deviations.
    assert float(gone.float().mean()) == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 20_000))
    torch.testing.assert_close(shown.opacities()[~gone], torch.full(((~gone).sum(),), 0.4 / (1 - rate)))
    ctx.training = False
    assert piece.transform(gaussians, ctx) is gaussians
    assert torch.equal(
        piece.transform(gaussians, context(gaussians)).logit_opacities, gaussians.logit_opacities
    )


def test_dropped_gaussians_get_no_gradient():
    gaussians = scene(100)
    ctx = context(gaussians, step=100)
    gaussians.requires_grad_()
    shown = Dropout(DropoutConfig(rate=0.5)).transform(gaussians, ctx)
    shown.opacities().sum().backward()
    gone = shown.opacities() < 1 / 255
    assert torch.equal(gaussians.logit_opacities.grad != 0, ~gone)


def test_anchors_take_their_neighbours_with_them():
    gaussians = scene(300)
    gaussians.means[:150] += 100  # two clusters
    piece = Dropout(DropoutConfig(rate=0.0, anchors=0.01, neighbours=10))
    ctx = context(gaussians, step=100)
    gone = [piece.transform(gaussians, ctx).opacities() < 1 / 255 for _ in range(40)]
    sizes = {int(g.sum()) for g in gone}
    assert sizes & {0}
    assert min(sizes - {0}) >= 11
    # A row that comes or goes makes another graph; a changed value does not.
    ctx.on_edit = lambda edit: piece.edited(edit, ctx)
    graph = piece.state_dict()["graph"]
    ctx.edits.replace("logit_opacities", None, gaussians.logit_opacities.clone())
    assert piece.state_dict()["graph"] is graph
    ctx.edits.remove(torch.arange(280))
    assert piece.state_dict()["graph"] is None
    assert len(piece.transform(ctx.gaussians, ctx)) == 20


def test_decay_takes_as_much_from_a_short_run_as_was_published_for_a_long_one():
    piece = Decay(DecayConfig(rate=0.995, most=10.0, start=0.5))
    long, short = context(scene(), 60, 30_000), context(scene(), 60, 100)
    assert piece.factor(long) == 1
    assert piece.factor(replace_step(long, 20_000)) == 0.995
    assert piece.factor(replace_step(context(scene(), 0, 10_000), 9_000)) == pytest.approx(0.995**3)
    assert piece.factor(short) == 0.995**10  # 300 would be too many
    before = short.gaussians.opacities()
    drawn = torch.arange(50) % 2
    short.output = RenderOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1), contribution=drawn.float())
    piece.after_step(short)
    factor = torch.where(drawn > 0, 0.995**10, 1.0)  # nothing pushes back what is hidden
    torch.testing.assert_close(short.gaussians.opacities(), before * factor)
    short.output = RenderOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1), contribution=torch.ones(49))
    piece.after_step(short)  # rows of another scene: density control was there before
    torch.testing.assert_close(short.gaussians.opacities(), before * factor)


def test_sizes_are_held_below_a_share_of_the_picture():
    """In the view that draws them; what it does not draw keeps its size."""
    place, up = torch.tensor([0.0, 0.0, -2.0]).double(), torch.tensor([0.0, -1.0, 0.0]).double()
    camera = Camera.look_at(place, torch.zeros(3).double(), up, width=64, height=48, field_of_view=1.0)
    ctx = context(scene(), camera=camera)
    before = ctx.gaussians.log_scales.clone()
    drawn = torch.arange(50) % 2
    ctx.output = RenderOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1), radii=drawn.int())
    piece = Size(SizeConfig(most=0.01))
    piece.load_state_dict({"first": 0.001})
    piece.after_step(ctx)
    z = (
        ctx.gaussians.means @ camera.world_to_camera[:3, :3].float().T + camera.world_to_camera[:3, 3].float()
    )[:, 2]
    most = 0.01 * max(camera.width, camera.height) * z / max(camera.fx, camera.fy)
    held = (drawn > 0) & (z > NEAR)
    after = ctx.gaussians.log_scales
    assert torch.equal(after[~held], before[~held])
    torch.testing.assert_close(after[held].exp(), torch.minimum(before[held].exp(), most[held, None]))
    assert int((after[held] < before[held]).sum()) > 0
    ctx.output = RenderOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1), radii=torch.ones(49).int())
    piece.load_state_dict({"first": 1e-9})
    piece.after_step(ctx)
    assert torch.equal(ctx.gaussians.log_scales, after)  # density control was there before


def test_few_gaussians_may_be_as_large_as_they_must():
    place, up = torch.tensor([0.0, 0.0, -4.0]).double(), torch.tensor([0.0, -1.0, 0.0]).double()
    camera = Camera.look_at(place, torch.zeros(3).double(), up, width=64, height=48, field_of_view=1.0)
    one = replace(scene(1), means=torch.zeros(1, 3), log_scales=torch.full((1, 3), -2.0))
    share = math.exp(-2) / 4 * camera.fx / 64
    assert shares(one, camera).tolist() == pytest.approx([share])
    ctx = context(one, camera=camera)
    ctx.output = RenderOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1), radii=torch.ones(1).int())
    piece = Size(SizeConfig(most=0.001))
    piece.load_state_dict({"first": share})
    piece.after_step(ctx)
    assert torch.equal(ctx.gaussians.log_scales, torch.full((1, 3), -2.0))
    ctx.gaussians.log_scales += 2
    piece.after_step(ctx)
    torch.testing.assert_close(ctx.gaussians.log_scales.exp(), torch.full((1, 3), 4 * math.exp(-2)))


def replace_step(ctx: Context, step: int) -> Context:
    ctx.step = step
    return ctx


def test_harmonics_above_the_degree_are_neither_drawn_nor_exported():
    gaussians, piece = scene(), ShRestraint(ShConfig(degree=1))
    ctx = context(gaussians, step=100)
    assert piece.transform(gaussians, ctx).sh.shape == (50, 4, 3)
    ctx.training = False
    assert torch.equal(piece.transform(gaussians, ctx).sh, gaussians.sh[:, :4])
    assert ShRestraint(ShConfig(degree=3)).transform(gaussians, ctx) is gaussians


def test_degree_dropout_draws_lower_degrees_as_often_as_asked():
    gaussians, piece = scene(), ShRestraint(ShConfig(degree=2, dropout=0.5))
    ctx = context(gaussians, step=100)
    counts = [piece.transform(gaussians, ctx).sh.shape[1] for _ in range(400)]
    assert set(counts) == {1, 4, 9}
    assert counts.count(9) / 400 == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))


def test_isolated_gaussians_are_found_and_few_are_left_alone():
    means = scene(400).means
    means[7] = torch.tensor([30.0, 0, 0])
    assert isolated(means, 3.0).nonzero()[:, 0].tolist() == [7]
    assert not isolated(means[:20], 3.0).any()


def test_what_hangs_before_a_surface_is_found_and_the_surface_stays():
    """A wall of opaque Gaussians at depth 4, and one faint Gaussian half-way to it."""
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-3, 3, 31), torch.linspace(-3, 3, 31), indexing="ij"), -1
    )
    wall = torch.cat([grid.reshape(-1, 2), torch.full((961, 1), 4.0)], 1)
    gaussians = replace(
        scene(962, 0.9),
        means=torch.cat([wall, torch.tensor([[0.0, 0, 2]])]),
        log_scales=torch.full((962, 3), math.log(0.15)),
    )
    gaussians.logit_opacities[-1] = -0.6  # opacity 0.35: the median stays on the wall
    camera = Camera(64, 48, 60, 60, 32, 24, torch.eye(4))
    output = render(gaussians, camera, RenderOptions(needs=frozenset({"depth", "median_depth"})))
    assert hanging(gaussians.means, camera, output, 0.1).nonzero()[:, 0].tolist() == [961]
    ctx = context(gaussians, step=9, steps=20, camera=camera, output=output)
    ctx.views = SimpleNamespace(dataset=SimpleNamespace(train=[0]))
    Floaters(FloatersConfig(every=0.5, spread=0.0, gap=0.1)).after_step(ctx)
    assert len(ctx.gaussians) == 961


def test_unpooling_puts_new_gaussians_half_way_to_the_neighbours_within_the_cap():
    gaussians = scene(100)
    gaussians.means[0] = torch.tensor([50.0, 0, 0])
    before = gaussians.clone()
    ctx = context(gaussians, step=1, steps=100, cap=104)
    Unpool(UnpoolConfig(every=0.02, above=5.0)).after_step(ctx)
    assert len(ctx.gaussians) == 103
    near = (before.means - before.means[0]).norm(dim=1).argsort()[1:4]
    torch.testing.assert_close(ctx.gaussians.means[100:], (before.means[near] + before.means[0]) / 2)
    assert torch.equal(ctx.gaussians.sh[100:], before.sh[near])
    ctx.step = 3
    Unpool(UnpoolConfig(every=0.02, above=5.0)).after_step(ctx)
    assert len(ctx.gaussians) == 103  # no room for another three


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory):
    folder = write_sample(
        tmp_path_factory.mktemp("pieces") / "sample", views=24, width=96, height=72, points=100, samples=1
    )
    with Dataset(read_scene(folder)) as data:
        yield data, folder


def truth(camera: Camera) -> RenderOutput:
    """What a perfect scene would draw."""
    view = render_sample(build_world(0), camera, samples=1)
    height, width = view.depth.shape
    return RenderOutput(
        image=torch.from_numpy(view.image).float() / 255,
        alpha=torch.ones(height, width),
        depth=torch.from_numpy(view.depth),
    )


def compared(piece: Binocular | Consistency, data: Dataset, stretch: float) -> dict[str, float]:
    """The piece's losses at the first view for a perfect scene whose depth there is `stretch` times too far."""
    views = Views(data, 0, "black")
    view = views.at(0, 0)
    ctx = context(scene(), step=99, views=views, position=0, camera=view.camera, target=view.target)
    piece.setup(ctx)
    (further,) = piece.renders(ctx)
    further.output = truth(further.camera)
    ctx.output = truth(view.camera)
    ctx.output.depth = (ctx.output.depth * stretch).requires_grad_()
    losses = piece.losses(ctx)
    sum(losses.values()).backward()
    assert ctx.output.depth.grad.abs().sum() > 0
    return {name: float(value.detach()) for name, value in losses.items()}


def test_the_view_beside_agrees_at_the_true_depth_alone(sample):
    piece = Binocular(BinocularConfig(shift=0.3, start=0.0))
    right, wrong = (compared(piece, sample[0], stretch)["binocular"] for stretch in (1.0, 1.3))
    assert right < 0.5 * wrong


def test_other_training_views_agree_at_the_true_depth_alone(sample):
    piece = Consistency(ConsistencyConfig(weight=1.0, colour=1.0, start=0.0, every=1, near=1))
    right, wrong = compared(piece, sample[0], 1.0), compared(piece, sample[0], 1.05)
    assert right["depth"] < 0.5 * wrong["depth"]
    assert right["colour"] < wrong["colour"]


@pytest.mark.parametrize("loss", [pearson, scale_shift])
def test_losses_of_priors_do_not_see_scale_and_shift(loss):
    generator = torch.Generator().manual_seed(5)
    values, other = torch.rand(2, 12, 16, generator=generator)
    kept = torch.rand(12, 16, generator=generator) > 0.3
    prior = torch.where(kept, 3 * values - 7, 100)  # what is not kept may hold anything
    assert float(loss(values, prior, kept)) == pytest.approx(0, abs=1e-5)
    assert float(loss(values, other, kept)) > 0.5
    values.requires_grad_()
    loss(values, other, kept).backward()
    assert values.grad[kept].abs().min() > 0
    assert not values.grad[~kept].any()


def test_pearson_is_one_minus_the_correlation():
    values, prior = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(6))
    expected = 1 - torch.corrcoef(torch.stack([values.flatten(), prior.flatten()]))[0, 1]
    everything = torch.ones(9, 9, dtype=torch.bool)
    torch.testing.assert_close(pearson(values, prior, everything), expected)
    assert float(pearson(values, torch.ones(9, 9), everything)) == 1


@pytest.mark.parametrize("loss", ["pearson", "ssi"])
def test_a_prior_of_depth_is_met_by_the_truth_in_another_scale(sample, loss: str):
    data, _ = sample
    piece = DepthPrior(PriorConfig(on=True, loss=loss, weight=1.0))
    view = Views(data, 0, "black").at(0, 0)
    ctx = context(scene(), views=Views(data, 0, "black"), view=view.index, camera=view.camera)
    piece.setup(ctx)

    def error(depth: torch.Tensor) -> float:
        ctx.output = RenderOutput(image=torch.zeros(72, 96, 3), alpha=torch.ones(72, 96), depth=depth)
        return float(piece.losses(ctx)[loss])

    exact = truth(view.camera).depth
    # Depths are of float32, their inverses' spread some percent of them: errors of 2^-24 grow a hundredfold.
    assert error(0.2 * exact) < 1e-3 < 0.3 < error(exact.flip(0))


def test_a_prior_that_no_view_has_is_refused(sample, tmp_path: Path):
    data, _ = sample
    views = Views(data, 0, "black")
    before, data.scene = data.scene, replace(data.scene, root=tmp_path)
    try:
        with pytest.raises(UsageError, match="has no depth of any training view"):
            DepthPrior(PriorConfig(on=True)).setup(context(scene(), views=views))
    finally:
        data.scene = before
