"""The loop: it learns, calls every hook in its place, and takes the fused path exactly when it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.link import Commands
from splat.raster import RenderOptions, RenderOutput
from splat.raster.reference import ReferenceBackend
from splat.training import guard
from splat.training.context import Context
from splat.training.edits import Edit
from splat.training.session import Session
from splat.training.strategy import Further, Strategy

Start = Callable[..., Session]


class Toy(Strategy):
    """A strategy without options; notes the hooks that were called."""

    name = "toy"
    config_type = type(None)
    controls_density = True

    def __init__(self) -> None:
        super().__init__(None)
        self.calls: list[str] = []


def test_training_brings_the_loss_down(start: Start) -> None:
    session = start()
    trainer = session.trainer
    before = session.score(0.0)
    trainer.run()
    after = session.score(0.0)
    assert trainer.ctx.step == 40
    assert after.psnr > before.psnr + 3
    assert [s.name for s in after.per_image] == ["view00.png", "view04.png"]


def test_sh_degree_grows(start: Start) -> None:
    trainer = start(steps=25).trainer
    seen = set()
    trainer.observers.append(lambda t: seen.add((t.ctx.step, t.sh_degree)))
    trainer.run()
    assert (9, 0) in seen
    assert (10, 1) in seen
    assert (25, 1) in seen


def test_hooks_are_called_in_order_with_the_context_filled(start: Start) -> None:
    class Order(Toy):
        def setup(self, ctx: Context) -> None:
            self.calls.append("setup")

        def renders(self, ctx: Context) -> list:
            self.calls.append("renders")
            assert ctx.target is not None
            assert ctx.rates["means"] > 0
            return []

        def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
            assert ctx.training
            self.calls.append("transform")
            return gaussians

        def after_render(self, output: RenderOutput, ctx: Context) -> RenderOutput:
            self.calls.append("after_render")
            return output

        def losses(self, ctx: Context) -> dict[str, torch.Tensor]:
            assert ctx.output is not None
            self.calls.append("losses")
            return {}

        def penalties(self, ctx: Context) -> dict[str, float]:
            self.calls.append("penalties")
            return {}

        def after_backward(self, ctx: Context) -> None:
            self.calls.append("after_backward")

        def after_step(self, ctx: Context) -> None:
            assert not torch.is_grad_enabled()
            assert not ctx.gaussians.means.requires_grad
            self.calls.append("after_step")

    toy = Order()
    trainer = start([toy]).trainer
    trainer.step()
    assert toy.calls == [
        "setup",
        "transform",
        "renders",
        "after_render",
        "losses",
        "after_backward",
        "penalties",
        "after_step",
    ]


def test_transform_is_trained_through_and_baked(start: Start) -> None:
    """A declared mask multiplies the opacities: it learns by its own rate, and export holds its effect."""

    class Masked(Toy):
        def setup(self, ctx: Context) -> None:
            ctx.declare("mask", 0.0, lr=0.05, activation=torch.sigmoid)

        def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
            self.calls.append("train" if ctx.training else "bake")
            opacity = gaussians.opacities() * ctx.value("mask")
            return replace(gaussians, logit_opacities=torch.logit(opacity))

    toy = Masked()
    session = start([toy])
    session.trainer.run()
    mask = session.trainer.ctx.gaussians.extras["mask"]
    assert (mask != 0).any()
    baked = session.trainer.baked()
    expected = session.trainer.ctx.gaussians.opacities() * torch.sigmoid(mask)
    torch.testing.assert_close(baked.opacities(), expected, rtol=1e-5, atol=1e-7)
    assert toy.calls[-1] == "bake"
    assert session.trainer.ctx.training


def test_head_with_its_own_optimizer_learns(start: Start) -> None:
    class Head(Toy):
        def setup(self, ctx: Context) -> None:
            self.gain = torch.full((3,), 0.5, requires_grad=True)
            self.optimizer = torch.optim.Adam([self.gain], lr=0.02)

        def after_render(self, output: RenderOutput, ctx: Context) -> RenderOutput:
            return replace(output, image=output.image * self.gain)

        def after_backward(self, ctx: Context) -> None:
            self.optimizer.step()
            self.optimizer.zero_grad()

        def state_dict(self) -> dict[str, Any]:
            return {"gain": self.gain.detach(), "optimizer": self.optimizer.state_dict()}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.gain.data.copy_(state["gain"])
            self.optimizer.load_state_dict(state["optimizer"])

    session = start([Head()])
    session.trainer.run()
    gain = session.trainer.strategies[0].gain
    assert (gain > 0.6).all()
    again = start([Head()], state=session.state_dict())
    assert torch.equal(again.trainer.strategies[0].gain, gain)


def test_statistics_reach_a_strategy_behind_a_head(start: Start) -> None:
    class Statistics(Toy):
        needs = frozenset({"means2d_grad", "absgrad", "radii"})

        def setup(self, ctx: Context) -> None:
            ctx.edits.track("gradient")

        def after_render(self, output: RenderOutput, ctx: Context) -> RenderOutput:
            return replace(output, image=output.image.clone())

        def after_backward(self, ctx: Context) -> None:
            ctx.edits.state["gradient"] += ctx.output.means2d_grad.norm(dim=1)
            assert (ctx.output.means2d_absgrad.abs() >= ctx.output.means2d_grad.abs() - 1e-6).all()
            assert ctx.output.radii.shape == (len(ctx.gaussians),)

    session = start([Statistics()])
    session.trainer.step()
    assert (session.trainer.ctx.edits.state["gradient"] > 0).any()


def test_param_grads_are_there_after_backward(start: Start) -> None:
    class Gradients(Toy):
        needs = frozenset({"param_grads"})

        def after_backward(self, ctx: Context) -> None:
            for name in PARAMETERS:
                assert getattr(ctx.gaussians, name).grad is not None, name
            self.calls.append("seen")

    toy = Gradients()
    start([toy]).trainer.step()
    assert toy.calls == ["seen"]


def test_losses_reach_declared_extras_and_outputs(start: Start) -> None:
    class Pull(Toy):
        def setup(self, ctx: Context) -> None:
            ctx.declare("code", lambda g: torch.ones(len(g), 2), lr=0.1)

        def losses(self, ctx: Context) -> dict[str, torch.Tensor]:
            dark = ctx.output.image.square().mean()
            return {"dark": 10 * dark, "code": ctx.gaussians.extras["code"].square().sum()}

    session = start([Pull()], steps=60)
    plain = start(steps=60)
    session.trainer.run()
    plain.trainer.run()
    assert session.trainer.ctx.gaussians.extras["code"].abs().max() < 0.3
    images = []
    for each in (session, plain):
        trainer = each.trainer
        images.append(trainer.draw(trainer.baked(), trainer.views.dataset.camera(0), torch.zeros(3)).mean())
    assert images[0] < 0.7 * images[1]


def test_penalties_add_up_over_strategies(start: Start) -> None:
    class Fade(Toy):
        def penalties(self, ctx: Context) -> dict[str, float]:
            return {"opacity": 5.0, "scale": 5.0}

    class Fade2(Fade):
        name = "fade2"
        controls_density = False

    session, plain = start([Fade(), Fade2()]), start()
    session.trainer.run()
    plain.trainer.run()
    assert session.trainer.ctx.gaussians.opacities().mean() < plain.trainer.ctx.gaussians.opacities().mean()
    assert session.trainer.ctx.gaussians.scales().mean() < plain.trainer.ctx.gaussians.scales().mean()


class Second(Toy):
    """A second field, rendered beside the scene, trained on the photograph and pruned on its own."""

    def setup(self, ctx: Context) -> None:
        moved = replace(ctx.gaussians, means=ctx.gaussians.means + 0.05)
        self.field = ctx.add_field("second", moved)
        self.edits: list[Edit] = []

    def renders(self, ctx: Context) -> list:
        options = RenderOptions(backend="reference", sh_degree=0)
        self.render = Further("second", ctx.camera, options, ctx.target)
        return [self.render]

    def losses(self, ctx: Context) -> dict[str, torch.Tensor]:
        assert ctx.further == [self.render]
        return {"agree": 0.1 * (ctx.output.image - self.render.drawn.image).abs().mean()}

    def after_step(self, ctx: Context) -> None:
        if ctx.step == 5:
            self.field.edits.remove(torch.arange(3))
        if ctx.step == 6:
            ctx.edits.copy(torch.tensor([0]))

    def edited(self, edit: Edit, ctx: Context) -> None:
        self.edits.append(edit)


def test_a_second_field_has_its_own_optimizer_and_edits(start: Start) -> None:
    toy = Second()
    session = start([toy])
    trainer, ctx = session.trainer, session.trainer.ctx
    n, first = len(ctx.gaussians), toy.field.gaussians.means.clone()
    for _ in range(4):
        trainer.step()
    assert not torch.equal(toy.field.gaussians.means, first)
    assert not torch.equal(toy.field.gaussians.means, ctx.gaussians.means)
    for _ in range(4):
        trainer.step()
    assert len(toy.field.gaussians) == n - 3
    assert len(ctx.gaussians) == n + 1
    assert [(e.field, e.kind) for e in toy.edits] == [("second", "remove"), ("main", "copy")]


def test_a_second_field_resumes_exactly(start: Start) -> None:
    straight = start([Second()])
    straight.trainer.run()
    half = start([Second()])
    for _ in range(17):
        half.trainer.step()
    again = start([Second()], state=half.state_dict())
    again.trainer.run()
    mine, theirs = again.trainer.ctx, straight.trainer.ctx
    fields = ((mine.main, theirs.main), (mine.fields["second"], theirs.fields["second"]))
    for one, other in fields:
        expected = dict(other.gaussians.named_tensors())
        for name, value in one.gaussians.named_tensors():
            assert torch.equal(value, expected[name]), name


class FakeDeferred:
    """Stands in for the native fused step: keeps the leaves' gradients away from the trainer."""

    made = 0

    def __init__(self) -> None:
        FakeDeferred.made += 1
        self.leaves: Gaussians | None = None

    def step(self, gaussians: Gaussians, moments: Any, rates: Any, **options: Any) -> None:
        assert self.leaves is not None
        assert set(rates) >= {"means", "quats", "log_scales", "logit_opacities", "sh0", "shN"}
        gaussians.means -= rates["means"] * self.leaves.means.grad.sign()


class FusedBackend(ReferenceBackend):
    """The reference with a deferred step."""

    name = "fused"

    def render(self, gaussians: Gaussians, camera: Any, options: RenderOptions) -> RenderOutput:
        deferred, options = options.deferred, replace(options, deferred=None)
        if deferred is None:
            return super().render(gaussians, camera, options)
        assert not any(getattr(gaussians, name).requires_grad for name in PARAMETERS)
        deferred.leaves = gaussians.detach().clone().requires_grad_()
        return super().render(deferred.leaves, camera, options)


def fused(session: Session) -> bool:
    """Whether a step of this session takes the fused path."""
    trainer = session.trainer
    trainer.backend = FusedBackend()
    if not ("param_grads" in frozenset().union(*(s.needs for s in trainer.strategies)) or trainer.poses):
        trainer._deferred = FakeDeferred
    before = FakeDeferred.made
    trainer.step()
    return FakeDeferred.made > before


def test_the_fused_path_is_taken_exactly_when_outputs_are_the_only_way(start: Start) -> None:
    class Scaled(Toy):
        def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
            return replace(gaussians, log_scales=gaussians.log_scales + 0.1)

    class Gradients(Toy):
        needs = frozenset({"param_grads"})

    assert fused(start())
    assert fused(start(exposure=True))
    assert not fused(start([Scaled()]))
    assert not fused(start([Second()]))
    assert not fused(start([Gradients()]))
    assert not fused(start(poses=True))


def test_commands_run_between_steps(start: Start) -> None:
    session = start(steps=10)
    trainer = session.trainer
    trainer.commands = commands = Commands()
    steps = []
    trainer.observers.append(lambda t: steps.append(t.ctx.step))
    commands.send(lambda t: t.extend(5))
    trainer.run()
    assert steps[-1] == 15
    commands.send(lambda t: t.extend(10))
    trainer.observers.append(lambda t: t.commands.send(lambda t: t.stop()))
    trainer.run()
    assert steps[-1] == 16


def test_rates_stay_past_the_horizon(start: Start) -> None:
    session = start(steps=10)
    session.trainer.run()
    longer = start(steps=14, state=session.state_dict())
    rates = []
    longer.trainer.observers.append(lambda t: rates.append(t.ctx.rates["means"]))
    longer.trainer.run()
    final = longer.trainer.ctx.optimizer.schedule.means_final * longer.trainer.ctx.scene_extent
    assert rates == pytest.approx([final] * 4)
    assert longer.trainer.ctx.steps == 10


def test_nan_parameters_are_named_with_their_step_and_values(start: Start) -> None:
    class Poison(Toy):
        def after_step(self, ctx: Context) -> None:
            if ctx.step == 6:
                ctx.gaussians.logit_opacities[4] = float("nan")

    trainer = start([Poison()]).trainer
    trainer.observers.append(lambda t: guard.check([t.ctx.main], t.ctx.step, t.ctx.step))
    with pytest.raises(guard.NotFinite) as caught:
        trainer.run()
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("step 7 made 1 Gaussians")
    assert "logit_opacities" in first
    assert rest[0] == "Gaussian 4:"
    assert any(line.strip() == "logit_opacities: nan" for line in rest)


def test_a_loss_that_is_not_finite_stops_before_the_optimizer(start: Start) -> None:
    class Burst(Toy):
        def losses(self, ctx: Context) -> dict[str, torch.Tensor]:
            return {"burst": ctx.output.image.sum() * (float("inf") if ctx.step == 3 else 0.0)}

    trainer = start([Burst()]).trainer
    for _ in range(3):
        trainer.step()
    kept = trainer.ctx.gaussians.clone()
    with pytest.raises(guard.NotFinite, match="loss of view"):
        trainer.step()
    for name, value in trainer.ctx.gaussians.named_tensors():
        assert torch.equal(value, dict(kept.named_tensors())[name])


def test_a_rate_of_zero_freezes_for_as_long_as_it_is_set(start: Start) -> None:
    class Freezing(Toy):
        def after_backward(self, ctx: Context) -> None:
            if 3 <= ctx.step < 6:
                ctx.rates["means"] = 0.0

    trainer = start([Freezing()]).trainer
    moved = []
    for _ in range(9):
        before = trainer.ctx.gaussians.means.clone(), trainer.ctx.gaussians.log_scales.clone()
        trainer.step()
        moved.append(not torch.equal(before[0], trainer.ctx.gaussians.means))
        assert not torch.equal(before[1], trainer.ctx.gaussians.log_scales)
    assert moved == [True] * 3 + [False] * 3 + [True] * 3
