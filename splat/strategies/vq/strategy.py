"""Training on what a small file can hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.strategies.vq import forms, masks, sensitivity
from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.layout import Layout
from splat.strategies.vq.layout_sog import SogLayout
from splat.strategies.vq.layout_vq import VqLayout
from splat.training.context import Context
from splat.training.edits import Edit
from splat.training.losses import psnr
from splat.training.strategy import Strategy

LABELS = "vq_labels"
MEASURED = "vq_measured"
_TETHERED = ("quats", "log_scales", "logit_opacities", "sh")
_SLOWED = ("quats", "log_scales", "logit_opacities", "sh0", "shN")
# Of the quantized part of the run, in which view-dependent colours could cover the distance to their words. Their own
# rate is made for whole runs, and takes a fifth to a third of that part. Measured on chair, whose colours learned best
# at 15 times their rate.
_WITHIN = 1 / 40
_REACH = 2.0  # of the root mean square distance from a value to its word
_MOVE = 10  # steps between two moves of the codewords
_MEASURE = 10  # steps between two measurements of the squared error, and of what changes cost
_BEFORE = 0.15  # of the run, that measuring begins before quantization
_LEAST = 0.01  # share of a sample in the running mean of what changes cost
_MEMORY = 0.95  # of the running mean of the squared error
# Of the Gaussians that one pruning takes: what each is worth is known while most of the others stay.
_MOST = 0.05


class Vq(Strategy):
    """Vector quantization of a scene in training.

    From `start` on the scene is drawn as its file will hold it, and the gradients go straight through to the
    values that are stored. Assignments to codewords are kept and made anew every now and then, at the price of
    their bits; codewords follow their members in between.

    Sources: Compact3D (Navaneet et al. 2024), RDO-Gaussian (Wang et al. 2024).
    """

    name: ClassVar[str] = "vq"
    config_type: ClassVar[type] = VqConfig
    straight_through = True
    transforms_last: ClassVar[bool] = True
    config: VqConfig

    def setup(self, ctx: Context) -> None:
        if ctx.optimizer.kind != "full":
            raise UsageError("vq turns the optimizer's moments with the axes: use it with --moments full")
        layout = SogLayout if self.config.layout == "sog" else VqLayout
        self.layout: Layout = layout(self.config, ctx.gaussians.sh_degree)
        self._ctx = ctx
        self._begun = False
        self._stale = False
        self._error = 0.0  # running mean of the squared error
        self._pace = 0.0  # least rate of view-dependent colours, before rates fall
        self._limits: dict[str, Tensor] = {}
        self._cap = ctx.cap
        self._samples = 0
        self._seen = torch.zeros(
            ctx.gaussians.sh.shape[1], ctx.gaussians.sh.shape[1], device=ctx.gaussians.device
        )
        columns = self.layout.columns
        ctx.edits.track(
            LABELS, lambda g: torch.zeros(len(g), columns, dtype=torch.int32, device=g.device), "copy"
        )
        masks.track(ctx)
        ctx.edits.track(MEASURED, lambda g: torch.zeros(len(g), sensitivity.WIDTH, device=g.device), "copy")

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        if not self._begun:
            return gaussians
        # What other strategies declared goes on beside the values that the file holds.
        return replace(self.layout.shown(gaussians, self._labels(ctx)), extras=gaussians.extras)

    def penalties(self, ctx: Context) -> dict[str, float]:
        active = self.config.opacity_penalty > 0 and ctx.step < self.config.settle * ctx.steps
        return {"opacity": self.config.opacity_penalty} if active else {}

    @torch.no_grad()
    def after_backward(self, ctx: Context) -> None:
        if ctx.step % _MEASURE == 0:
            truth = ctx.target.float() / 255
            error = 10 ** (-psnr(ctx.output.image.detach().clamp(0, 1), truth, ctx.mask) / 10)
            self._error = error if self._error == 0 else _MEMORY * self._error + (1 - _MEMORY) * error
        measuring = ctx.step >= (self.config.start - _BEFORE) * ctx.steps
        if measuring and (ctx.step % _MEASURE == 0 or self._samples == 0):
            self._measure(ctx)
        if self._begun:
            self._slow(ctx)

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        c, taken = self.config, ctx.step + 1
        first, last = round(c.start * ctx.steps), round(c.settle * ctx.steps)
        if not self._begun:
            if taken >= first:
                self._begin(ctx)
            return
        if c.prune > 0 and taken <= last:
            self._mask(ctx, taken - first, max(1, last - first))
        due = taken <= last and ((taken - first) % c.every == 0 or taken == last)
        if due and c.prune > 0:
            self._prune(ctx)
        if due or self._stale:
            self._assign(ctx, learn=due)
        elif taken % _MOVE == 0:
            self._tether(ctx, self.layout.shown(ctx.gaussians, self._labels(ctx)))
            self.layout.move(ctx.gaussians, self._labels(ctx), self._weights(ctx))

    def edited(self, edit: Edit, ctx: Context) -> None:
        self._stale |= edit.field == "main" and edit.kind not in ("remove", "permute")

    def export(self, ctx: Context) -> dict[str, Any]:
        return {"codebooks": self.layout.codebooks(self._labels(ctx))} if self._begun else {}

    def state_dict(self) -> dict[str, Any]:
        layout = self.layout.state_dict() if self._begun else None
        return {
            "layout": layout,
            "limits": dict(self._limits),
            "stale": self._stale,
            "error": self._error,
            "pace": self._pace,
            "cap": self._cap,
            "samples": self._samples,
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._begun = state["layout"] is not None
        if self._begun:
            self.layout.load_state_dict(state["layout"])
        self._limits = dict(state["limits"])
        self._stale, self._error, self._cap = state["stale"], state["error"], state["cap"]
        self._pace = state["pace"]
        self._samples, self._seen = state["samples"], state["seen"].to(self._ctx.gaussians.device)
        self._ctx.cap = min(self._ctx.cap, self._cap)

    def _begin(self, ctx: Context) -> None:
        forms.sort_axes(ctx)
        lam = self._lam(ctx)
        self._keep(ctx, self.layout.begin(ctx.gaussians, self._weights(ctx), lam, ctx.config.seed))
        self._begun = True
        self._limit(ctx, self.layout.shown(ctx.gaussians, self._labels(ctx)))
        views = self._limits["sh"][1:] / _REACH
        steps = max(1.0, _WITHIN * (1 - self.config.start) * ctx.steps)
        self._pace = float(views.square().mean().sqrt()) / steps if views.numel() else 0.0

    def _assign(self, ctx: Context, learn: bool) -> None:
        g, weight, lam = ctx.gaussians, self._weights(ctx), self._lam(ctx)
        labels = self.layout.assign(g, weight, lam, learn)
        self._keep(ctx, labels)
        shown = self.layout.shown(g, labels)
        if learn:
            self._limit(ctx, shown)
        self._tether(ctx, shown)
        ctx.log("vq_bits", float(masks.bits(ctx).mean()))

    def _keep(self, ctx: Context, labels: Tensor) -> None:
        ctx.edits.state[LABELS] = labels
        masks.set_bits(ctx, self.layout.bits(ctx.gaussians, labels))
        words = self.layout.rotations(labels)
        if words is not None:
            forms.align(ctx, words)
        self._stale = False

    def _limit(self, ctx: Context, shown: Gaussians) -> None:
        """Take note of how far the stored values lie from their words."""
        g = ctx.gaussians
        for name in _TETHERED:
            distance = getattr(g, name) - getattr(shown, name)
            self._limits[name] = _REACH * distance.square().mean(0).sqrt()

    def _tether(self, ctx: Context, shown: Gaussians) -> None:
        """Keep the stored values within reach of their words.

        A gradient that goes straight through does not cease when its step is taken: between two assignments it
        would carry values far past the words that they are on the way to.
        """
        g, stale = ctx.gaussians, self._stale
        for name, limit in self._limits.items():
            word = getattr(shown, name)
            distance = getattr(g, name) - word
            value = word + distance.clamp(-limit, limit)
            ctx.edits.replace(name, None, value, zero_moments=False)
        self._stale = stale

    def _slow(self, ctx: Context) -> None:
        """This step's rates of what is quantized: they fall from 1 at the start to `final_rate` at the end, of what
        they are in other runs; view-dependent colours learn faster, by how far they are from their words."""
        start = self.config.start * ctx.steps
        factor = self.config.final_rate ** min(1.0, (ctx.step - start) / max(1.0, ctx.steps - start))
        for name in _SLOWED:
            ctx.rates[name] *= factor
        ctx.rates["shN"] = max(ctx.rates["shN"], self._pace * factor)

    def _labels(self, ctx: Context) -> Tensor:
        return ctx.edits.state[LABELS]

    def _measure(self, ctx: Context) -> None:
        """Take a sample of what changes cost into the running mean; turns by the axes as codebooks have them."""
        g = ctx.gaussians
        found, seen = sensitivity.sample(self.transform(g, ctx), ctx)
        if not self._begun:
            order = g.log_scales.argsort(dim=1, descending=True, stable=True)
            found[:, sensitivity.TURNS] = found[:, sensitivity.TURNS].gather(1, order)
        self._samples += 1
        share = max(_LEAST, 1 / self._samples)
        ctx.edits.state[MEASURED] = ctx.edits.state[MEASURED].lerp(found, share)
        self._seen = self._seen.lerp(seen, share)

    def _weights(self, ctx: Context) -> dict[str, Tensor]:
        return sensitivity.weights(ctx.edits.state[MEASURED], self._seen)

    def _lam(self, ctx: Context) -> float:
        """Squared error that a bit of one Gaussian is worth."""
        return self.config.rate * self._error / max(1, len(ctx.gaussians))

    def _mask(self, ctx: Context, taken: int, steps: int) -> None:
        """A step of the masks, at the price of what each Gaussian takes in the file."""
        # The loss is about the root of the squared error, whose relative rise is twice its own.
        price = self.config.prune * self.config.rate * self._error**0.5 / 2 / max(1, len(ctx.gaussians))
        penalty = sum(s.penalties(ctx).get("opacity", 0.0) for s in (self, ctx.density) if s is not None)
        masks.learn(ctx, price, penalty, taken, steps)

    def _prune(self, ctx: Context) -> None:
        """Take away what is not worth its bits, and let no growth bring it back."""
        value = masks.values(ctx)
        gone = value < 0
        limit = int(_MOST * len(gone))
        if int(gone.sum()) > limit:
            gone = torch.zeros_like(gone)
            gone[value.argsort()[:limit]] = True
        if bool(gone.any()):
            ctx.edits.remove(gone)
            ctx.cap = self._cap = len(ctx.gaussians)
        ctx.log("vq_pruned", int(gone.sum()))
