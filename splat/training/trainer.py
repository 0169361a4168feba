"""The loop alone: one view a step, gradients, optimizer, strategies' hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from splat.codecs.quantize.order import morton_order
from splat.core import Camera, Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.core.heads import Head
from splat.link import Commands
from splat.raster import RenderOptions, RenderOutput
from splat.training import guard
from splat.training.ahead import Ahead
from splat.training.context import MAIN, Context, Field
from splat.training.gradients import require_grad, straight_through
from splat.training.losses import photometric
from splat.training.perview import Exposure, Poses
from splat.training.readback import Readback
from splat.training.replays import Captured, Replays
from splat.training.steered import Steered
from splat.training.strategy import Strategy
from splat.training.views import View, Views

PARAM_GRADS = "param_grads"


@dataclass
class _Drawn:
    """A step after its backward pass."""

    loss: Tensor
    deferred: Any  # of the backend's fused step, or None
    shown: Gaussians


class Trainer(Steered):
    """Trains `ctx` on `views`; knows strategies only by their hooks.

    Attributes:
        loss, loss_view: of the last step, and the name of its view.
        observers: called with the trainer after every step.
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
        super().__init__(ctx, commands or Commands())
        self.strategies = list(strategies)
        self.views = views
        self.backend = backend
        self.exposure = exposure
        self.poses = poses
        self.loss = math.nan  # the latest that is known: on a GPU of some steps ago
        self.loss_view = ""
        self._losses: Readback[tuple[int, str]] = Readback()
        self.observers: list[Callable[[Trainer], None]] = []
        self.save: Callable[[], None] = lambda: None

        ctx.on_edit = self._edited
        ctx.views = views
        ctx.density = next((s for s in self.strategies if s.controls_density), None)
        for strategy in self.strategies:
            strategy.setup(ctx)
        asked = frozenset().union(*(s.needs for s in self.strategies))
        fits = poses is None or getattr(backend, "fits_poses", False)
        self._deferred = deferred if PARAM_GRADS not in asked and fits else None
        if ctx.optimizer.kind == "quantized" and not getattr(backend, "quantized_moments", False):
            self._deferred = None
        # What is shown has the gradients of what is stored: no transform, or none but straight-through ones.
        self._straight = all(
            s.straight_through or type(s).transform is Strategy.transform for s in self.strategies
        )
        self._ahead: Ahead | None = None
        self._replays: Replays | None = None
        if self._deferred is not None and hasattr(backend, "guard"):
            self._ahead = Ahead(backend.guard(ctx.gaussians.device))
            self._deferred = partial(self._deferred, self._ahead.guard)
            ctx.guard = self._ahead.guard
            self._replays = Replays(ctx, backend, ctx.guard)
        self._set_precision()

    def _set_precision(self) -> None:
        """Harmonics in float16 where the moments are quantized and nothing but the backend's fused step needs them."""
        g = self.ctx.gaussians
        fused = self._deferred is not None and all(
            type(s).transform is Strategy.transform and not s.draws_further for s in self.strategies
        )
        halves = fused and self.ctx.optimizer.kind == "quantized" and getattr(self.backend, "half_sh", False)
        g.sh = g.sh.to(torch.float16 if halves else g.dtype)

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
        if self.poses is not None:
            self.poses.counts = state["poses"]
        if self._replays is not None:
            self._replays.forget()
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
            "poses": None if self.poses is None else list(self.poses.counts),
        }

    def _advance(self) -> None:
        """A step, unless it turns out that one was refused: then the host is back before that one."""
        ctx = self.ctx
        before = None if self._ahead is None else self._host_state()
        self._release()
        view = self.views.next(ctx.step)
        self._look_at(view)
        ctx.rates = ctx.optimizer.rates(ctx.step)
        for strategy in self.strategies:
            ctx.set_numbers(strategy.numbers(ctx))
        graph = way = None
        if self._replays is not None:
            way = self._replays.next(self._kind(view), view)
            graph = self._graph(view, way)
        taken = self._take(view, way, before) if graph is None else self._replay(graph, view, before)
        if not taken:
            return
        if self._replays is not None:
            self._replays.took()
        ctx.step += 1

    def _look_at(self, view: View) -> None:
        ctx = self.ctx
        ctx.view, ctx.camera, ctx.target, ctx.mask = view.index, view.camera, view.target, view.mask
        ctx.position, ctx.background = view.position, view.background

    def _take(self, view: View, way: Any, before: dict[str, Any] | None) -> bool:
        """The step, kernel by kernel; False if it turned out that one was refused."""
        drawn = self._draw(view, way, before)
        if drawn is None or (self._ahead is not None and self._returned(wait=not self._steady())):
            return False
        self._publish(drawn.loss, view)
        self._conclude(drawn, view)
        return True

    def _graph(self, view: View, way: Any) -> Captured | None:
        """What to replay for this step, if that is how it is taken. Capturing it counts as no step."""
        ctx, poses = self.ctx, self.poses
        assert self._replays is not None
        count, counts = ctx.optimizer.count, None if poses is None else list(poses.counts)
        graph = self._replays.graph(way, view, partial(self._enqueue, way))
        ctx.optimizer.count = count
        if poses is not None and counts is not None:
            poses.counts = counts
        self._look_at(view)
        return graph

    def _replay(self, captured: Captured, view: View, before: dict[str, Any] | None) -> bool:
        """The step as a replay; False if it turned out that one was refused."""
        ctx, poses = self.ctx, self.poses
        assert self._ahead is not None
        assert before is not None
        self._ahead.begin(before)
        captured.show(view)
        fitted = None if poses is None else poses.fused(view.position, ctx.step)
        self._optimise(captured.graph.deferred(view.camera, fitted), ctx.gaussians, view.position)
        captured.graph.replay()
        loss, ctx.output = captured.result
        if self._returned(wait=False):
            return False
        self._publish(loss, view)
        return True

    def _enqueue(self, way: Any, view: View) -> tuple[Tensor, RenderOutput]:
        """All that a steady step does on the device, on a view whose tensors keep their places."""
        self._look_at(view)
        drawn = self._draw(view, way, None)
        assert drawn is not None
        self._conclude(drawn, view)
        return drawn.loss, self.ctx.output

    def _draw(self, view: View, way: Any, before: dict[str, Any] | None) -> _Drawn | None:
        """To the end of the backward pass. None: an earlier step was refused. Without `before` nothing is asked or
        remembered of that."""
        ctx, stored = self.ctx, self.ctx.gaussians
        for field in self._fields():
            require_grad(field, True)
        with torch.set_grad_enabled(not self._straight):
            shown = self._transformed(stored)
        ctx.further = [further for s in self.strategies for further in s.renders(ctx)]
        options = self._options(shown, view.background)
        camera = view.camera
        fused = self._deferred is not None and self._straight and not ctx.further
        if fused:
            assert self._deferred is not None
            options.deferred = self._deferred()
            for name in PARAMETERS:
                getattr(stored, name).requires_grad_(False)
            if way is not None:
                options.deferred.backward = way.backward
            if self.poses is not None:
                options.deferred.poses = self.poses.fused(view.position, ctx.step)
            if self._ahead is not None and before is not None:
                self._ahead.begin(before)
        else:
            if self._ahead is not None and self._ahead.pending and self._returned(wait=True):
                return None
            if self._straight and shown is not stored:
                shown = straight_through(stored, shown)
            if self.poses is not None:
                camera = self.poses.camera(view.position, camera)

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
        if ctx.output is not drawn:
            ctx.output.means2d_grad, ctx.output.means2d_absgrad = drawn.means2d_grad, drawn.means2d_absgrad
        return _Drawn(loss, options.deferred, shown)

    def _conclude(self, drawn: _Drawn, view: View) -> None:
        """From the gradients to the next scene."""
        ctx = self.ctx
        for strategy in self.strategies:
            strategy.after_backward(ctx)
        self._optimise(drawn.deferred, drawn.shown, view.position)
        for field in self._fields():
            require_grad(field, False)
        with torch.no_grad():
            for strategy in self.strategies:
                strategy.after_step(ctx)
            if self._reorders():
                ctx.edits.permute(morton_order(ctx.gaussians.means))

    def _publish(self, loss: Tensor, view: View) -> None:
        """Send for the loss of this step, and take what has arrived of earlier ones."""
        ctx = self.ctx
        self._losses.send((ctx.step + 1, view.camera.name), loss)
        for (step, name), known in self._losses.received():
            self.loss, self.loss_view = known, name
            if not math.isfinite(known):
                guard.report(self._fields(), step, ctx.step + 1, f"the loss of view {name!r} is {known}")

    def _fields(self) -> list[Field]:
        return [self.ctx.main, *self.ctx.fields.values()]

    def _kind(self, view: View) -> Hashable | None:
        """Steps of equal kinds do the same on the device, but for what is sent to it before; None: like no other."""
        ctx = self.ctx
        if not (self._straight and self._steady()):
            return None
        keys = tuple(strategy.repeats(ctx) for strategy in self.strategies)
        if any(key is None for key in keys) or any(s.draws_further for s in self.strategies):
            return None
        held = [value for _, value in ctx.gaussians.named_tensors()] + list(ctx.edits.state.values())
        held += [moment for moments in ctx.optimizer.moments.values() for moment in moments]
        places = tuple(tensor.data_ptr() for tensor in held)
        size = (len(ctx.gaussians), view.camera.width, view.camera.height, view.mask is not None)
        return size, self.sh_degree, keys, self._needed(), places

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
    def way(self) -> str:
        """How steps are taken on a GPU, in words; empty where there is but one way."""
        return "" if self._replays is None else self._replays.choice

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
            g = self._transformed(self.ctx.gaussians).detach()
            return replace(g, sh=g.sh.to(g.dtype))
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
        self._set_precision()

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
        return RenderOptions(background, self.sh_degree, features, self._needed())

    def _needed(self) -> frozenset[str]:
        """What the strategies ask the render for in this step."""
        return frozenset().union(*(s.needed(self.ctx) for s in self.strategies)) - {PARAM_GRADS}

    def _finished(self, output: RenderOutput) -> RenderOutput:
        for strategy in self.strategies:
            output = strategy.after_render(output, self.ctx)
        return output

    def _field(self, field: str | Field) -> Field:
        return field if isinstance(field, Field) else self.ctx.fields[field]

    def _edited(self, edit: Any) -> None:
        for strategy in self.strategies:
            strategy.edited(edit, self.ctx)
