"""The loop alone: one view a step, gradients, optimizer, strategies' hooks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from splat.codecs.quantize.order import morton_order
from splat.core import Camera, Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.core.heads import Head
from splat.link import Commands, Snapshot, Turns
from splat.raster import RenderOptions, RenderOutput
from splat.training import guard
from splat.training.ahead import Ahead
from splat.training.byhand import ByHand
from splat.training.context import MAIN, Context, Field
from splat.training.losses import photometric
from splat.training.perview import Exposure, Poses
from splat.training.readback import Readback
from splat.training.strategy import Strategy
from splat.training.views import Views

PARAM_GRADS = "param_grads"


class Trainer:
    """Trains `ctx` on `views`; knows strategies only by their hooks.

    Attributes:
        end: step at which `run` returns.
        loss, loss_view: of the last step, and the name of its view.
        observers: called with the trainer after every step.
        idlers: called with the trainer again and again while it is paused.
        commands: run between steps, with the trainer as their argument.
        turns: of who draws between steps.
        paused, stopping: obeyed between steps.
        by_hand: what people take out of the scene.
        revision: counts what commands did to the scene.
        save: writes a checkpoint; set by who keeps them.
    """

    def __init__(
        self,
        ctx: Context,
        strategies: Sequence[Strategy],
        views: Views,
        backend: Any,
        *,
        deferred: Callable[..., Any] | None = None,
        exposure: Exposure | None = None,
        poses: Poses | None = None,
        commands: Commands | None = None,
    ) -> None:
        """`deferred` makes what the backend's fused step needs; None where it has none."""
        self.ctx = ctx
        self.strategies = list(strategies)
        self.views = views
        self.backend = backend
        self.exposure = exposure
        self.poses = poses
        self.commands = commands or Commands()
        self.turns = Turns()
        self.end = ctx.steps
        self.loss = math.nan  # the latest that is known: on a GPU of some steps ago
        self.loss_view = ""
        self._losses: Readback[tuple[int, str]] = Readback()
        self.observers: list[Callable[[Trainer], None]] = []
        self.idlers: list[Callable[[Trainer], None]] = []
        self.paused = False
        self.stopping = False
        self.by_hand = ByHand(ctx.main)
        self.revision = 0
        self.save: Callable[[], None] = lambda: None
        self._pause_at: int | None = None

        ctx.on_edit = self._edited
        ctx.views = views
        ctx.density = next((s for s in self.strategies if s.controls_density), None)
        for strategy in self.strategies:
            strategy.setup(ctx)
        asked = frozenset().union(*(s.needs for s in self.strategies))
        self._needs = asked - {PARAM_GRADS}
        self._deferred = None if PARAM_GRADS in asked or poses is not None else deferred
        if ctx.optimizer.kind == "quantized" and not getattr(backend, "quantized_moments", False):
            self._deferred = None
        # What is shown has the gradients of what is stored: no transform, or none but straight-through ones.
        self._straight = all(
            s.straight_through or type(s).transform is Strategy.transform for s in self.strategies
        )
        self._ahead: Ahead | None = None
        if self._deferred is not None and hasattr(backend, "guard"):
            self._ahead = Ahead(backend.guard(ctx.gaussians.device))
            self._deferred = partial(self._deferred, self._ahead.guard)
            ctx.guard = self._ahead.guard

    def run(self) -> None:
        """Step until `end`, or until a command or a signal sets `stopping`."""
        while True:
            if self.commands.waiting:
                self.settle()
                self.commands.drain(self)
            if self.stopping or self.ctx.step >= self.end:
                self.settle()
                return
            if self.paused:
                self._idle()
                continue
            self.step()
            for observer in self.observers:
                observer(self)
            self.turns.lend()
            if self._pause_at is not None and self.ctx.step >= self._pause_at:
                self.pause()

    def linger(self) -> bool:
        """Obey commands after the end until one moves the end on (True) or asks to stop (False)."""
        while True:
            self.commands.drain(self)
            if self.stopping or self.ctx.step < self.end:
                return not self.stopping
            self._idle()

    def _idle(self) -> None:
        for idler in self.idlers:
            idler(self)
        time.sleep(0.02)

    def pause(self) -> None:
        self.paused, self._pause_at = True, None

    def resume(self) -> None:
        self.paused, self._pause_at = False, None

    def advance(self, steps: int) -> None:
        """Train `steps` more, then pause."""
        self.paused, self._pause_at = False, self.ctx.step + steps

    def stop(self) -> None:
        self.stopping = True

    def remove(self, chosen: Tensor, of: Snapshot) -> None:
        """Take the `chosen` ([N] bool) Gaussians of a snapshot out of the scene; see link.Controls."""
        self.by_hand.remove(chosen, of)
        self.revision += 1

    def restore(self) -> None:
        """Put back what the latest `remove` took; see link.Controls."""
        self.by_hand.restore(self.ctx.cap - len(self.ctx.gaussians))
        self.revision += 1

    def extend(self, steps: int) -> None:
        """Go on for `steps` more; past the planned horizon the rates stay at their final values."""
        self.end += steps

    def step(self) -> None:
        """One training step.

        On a GPU the host may learn only now that an earlier one was refused (see Ahead): then all from there on
        are taken again. What is observed of such a step before that belongs to an incomplete picture.
        """
        self._go_to(self.ctx.step + 1)

    def settle(self) -> None:
        """Wait until every step so far is known to be taken."""
        if self._ahead is not None and self._ahead.pending:
            reached = self.ctx.step
            while self._returned(wait=True):
                self._go_to(reached)

    def _go_to(self, step: int) -> None:
        while self.ctx.step < step:
            self._advance()

    def _returned(self, *, wait: bool) -> bool:
        """Whether a step was refused; if so, the host is back before it."""
        assert self._ahead is not None
        state = self._ahead.refused(wait=wait)
        if state is None:
            return False
        ctx = self.ctx
        ctx.step = state["step"]
        ctx.optimizer.count = state["count"]
        ctx.generator.set_state(state["generator"])
        self.views.load_state_dict(state["views"])
        self._losses.forget(lambda label: label[0] > ctx.step)
        return True

    def _host_state(self) -> dict[str, Any]:
        """What a step without the device's consent changes on the host."""
        ctx = self.ctx
        return {
            "step": ctx.step,
            "count": ctx.optimizer.count,
            "generator": ctx.generator.get_state(),
            "views": self.views.state_dict(),
        }

    def _advance(self) -> None:
        """A step, unless it turns out that one was refused: then the host is back before that one."""
        ctx, stored = self.ctx, self.ctx.gaussians
        before = None if self._ahead is None else self._host_state()
        self._release()
        fields = [ctx.main, *ctx.fields.values()]
        view = self.views.next(ctx.step)
        ctx.view, ctx.camera, ctx.target, ctx.mask = view.index, view.camera, view.target, view.mask
        ctx.position, ctx.background = view.position, view.background
        ctx.rates = ctx.optimizer.rates(ctx.step)
        camera = view.camera if self.poses is None else self.poses.camera(view.position, view.camera)

        for field in fields:
            _require_grad(field, True)
        with torch.set_grad_enabled(not self._straight):
            shown = self._transformed(stored)
        ctx.further = [further for s in self.strategies for further in s.renders(ctx)]
        options = self._options(shown, view.background)
        if self._deferred is not None and self._straight and not ctx.further:
            options.deferred = self._deferred()
            for name in PARAMETERS:
                getattr(stored, name).requires_grad_(False)
            if self._ahead is not None:
                assert before is not None
                self._ahead.begin(before)
        else:
            if self._ahead is not None and self._ahead.pending and self._returned(wait=True):
                return
            if self._straight and shown is not stored:
                shown = _straight_through(stored, shown)

        drawn = self.backend.render(shown, camera, options)
        ctx.output = self._finished(drawn)
        image = ctx.output.image
        if self.exposure is not None:
            image = self.exposure.apply(view.position, image)
        loss = photometric(image, view.target, view.mask, ctx.config.ssim_weight)
        for further in ctx.further:
            gaussians = shown if further.field in (MAIN, ctx.main) else self._field(further.field).gaussians
            further.output = self.backend.render(gaussians, further.camera, further.options)
            if further.target is not None:
                loss = loss + photometric(
                    further.output.image, further.target, further.mask, ctx.config.ssim_weight
                )
        for strategy in self.strategies:
            for value in strategy.losses(ctx).values():
                loss = loss + value
        loss.backward()
        if self._ahead is not None and self._returned(wait=not self._steady()):
            return
        self._losses.send((ctx.step + 1, view.camera.name), loss)
        for (step, name), known in self._losses.received():
            self.loss, self.loss_view = known, name
            if not math.isfinite(known):
                guard.report(fields, step, ctx.step + 1, f"the loss of view {name!r} is {known}")
        if ctx.output is not drawn:
            ctx.output.means2d_grad, ctx.output.means2d_absgrad = drawn.means2d_grad, drawn.means2d_absgrad
        for strategy in self.strategies:
            strategy.after_backward(ctx)
        self._optimise(options.deferred, shown, view.position)
        for field in fields:
            _require_grad(field, False)
        with torch.no_grad():
            for strategy in self.strategies:
                strategy.after_step(ctx)
            if self._reorders():
                ctx.edits.permute(morton_order(ctx.gaussians.means))
        ctx.step += 1

    def _reorders(self) -> bool:
        """Whether the Gaussians are put in order after this step."""
        every = self.ctx.config.reorder
        return every > 0 and (self.ctx.step + 1) % every == 0

    def _steady(self) -> bool:
        """Whether what follows in this step changes nothing but by kernels that heed the guard."""
        return (
            self.exposure is None
            and not self._reorders()
            and not self.ctx.fields
            and not any(extra.lr is not None for extra in self.ctx.optimizer.extras.values())
            and all(strategy.runs_ahead(self.ctx) for strategy in self.strategies)
        )

    def _release(self) -> None:
        """Let go of the last renders: their memory is for the next ones."""
        self.ctx.output = None  # type: ignore[assignment]
        for further in self.ctx.further:
            further.output = None

    @property
    def sh_degree(self) -> int:
        """Degree of the harmonics in use at the current step."""
        return self.ctx.sh_degree

    @torch.no_grad()
    def baked(self) -> Gaussians:
        """The scene as it is drawn after training: every strategy's transform applied."""
        self.settle()
        self.ctx.training = False
        try:
            return self._transformed(self.ctx.gaussians).detach()
        finally:
            self.ctx.training = True

    def heads(self) -> tuple[Head, ...]:
        """The strategies' heads as they are now, for who draws elsewhere (splat.raster.draw)."""
        found = (strategy.head(self.ctx) for strategy in self.strategies)
        return tuple(head for head in found if head is not None)

    def draw(self, baked: Gaussians, camera: Camera, background: Tensor) -> Tensor:
        """[H, W, 3] the image of a `baked` scene, with the strategies' heads, not clamped; differentiable."""
        ctx = self.ctx
        kept = ctx.output, ctx.camera
        ctx.training, ctx.camera = False, camera
        try:
            options = self._options(baked, background)
            return self._finished(self.backend.render(baked, camera, options)).image
        finally:
            ctx.training, (ctx.output, ctx.camera) = True, kept

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        self.settle()
        ctx = self.ctx
        return {
            "step": ctx.step,
            "main": ctx.main.state_dict(),
            "fields": {name: field.state_dict() for name, field in ctx.fields.items()},
            "strategies": {s.name: s.state_dict() for s in self.strategies},
            "generator": ctx.generator.get_state(),
            "views": self.views.state_dict(),
            "exposure": self.exposure.state_dict() if self.exposure else None,
            "poses": self.poses.state_dict() if self.poses else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        ctx = self.ctx
        ctx.step = state["step"]
        ctx.main.load_state_dict(state["main"])
        for name, saved in state["fields"].items():
            field = ctx.fields.get(name) or ctx.add_field(name)
            field.load_state_dict(saved)
        for strategy in self.strategies:
            if strategy.name in state["strategies"]:
                strategy.load_state_dict(state["strategies"][strategy.name])
        ctx.generator.set_state(state["generator"])
        self.views.load_state_dict(state["views"])
        for part, name in ((self.exposure, "exposure"), (self.poses, "poses")):
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])

    def _optimise(self, deferred: Any, shown: Gaussians, position: int) -> None:
        ctx = self.ctx
        penalties: dict[str, float] = {}
        for strategy in self.strategies:
            for name, weight in strategy.penalties(ctx).items():
                penalties[name] = penalties.get(name, 0.0) + weight
        if deferred is not None:
            ctx.optimizer.step_fused(deferred, shown, ctx.rates, penalties)
        else:
            ctx.optimizer.step(ctx.rates, penalties)
        for field in ctx.fields.values():
            if any(value.grad is not None for _, value in field.optimizer.trained()):
                field.optimizer.step(field.optimizer.rates(ctx.step), field.penalties)
        for part in (self.exposure, self.poses):
            if part is not None:
                part.update(position, ctx.step)

    def _transformed(self, gaussians: Gaussians) -> Gaussians:
        for strategy in self.strategies:
            gaussians = strategy.transform(gaussians, self.ctx)
        return gaussians

    def _options(self, shown: Gaussians, background: Tensor) -> RenderOptions:
        found = {s.name: s.features(shown, self.ctx) for s in self.strategies}
        found = {name: features for name, features in found.items() if features is not None}
        if len(found) > 1:
            raise UsageError(f"one strategy of a run can blend features; {' and '.join(found)} both do")
        features = next(iter(found.values()), None)
        return RenderOptions(background, self.sh_degree, features, self._needs)

    def _finished(self, output: RenderOutput) -> RenderOutput:
        for strategy in self.strategies:
            output = strategy.after_render(output, self.ctx)
        return output

    def _field(self, field: str | Field) -> Field:
        return field if isinstance(field, Field) else self.ctx.fields[field]

    def _edited(self, edit: Any) -> None:
        for strategy in self.strategies:
            strategy.edited(edit, self.ctx)


def _straight_through(stored: Gaussians, shown: Gaussians) -> Gaussians:
    """The values of `shown`, whose gradients go to `stored` as they are."""
    passed = {
        name: _StraightThrough.apply(getattr(stored, name), getattr(shown, name)) for name in PARAMETERS
    }
    return replace(shown, **passed)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stored: Tensor, shown: Tensor) -> Tensor:
        return shown.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def _require_grad(field: Field, flag: bool) -> None:
    """Make leaves of what the field optimises, or ordinary tensors without gradients again."""
    for _, value in field.optimizer.trained():
        value.grad = None
        value.requires_grad_(flag)
