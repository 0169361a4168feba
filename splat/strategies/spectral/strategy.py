"""Pruning by the spectrum of a graph on the Gaussians, or by simpler measures, during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from splat.core import UsageError
from splat.strategies.spectral.graph import Form
from splat.strategies.spectral.selection import METHODS, Method, Pick, Signal, Spectrum, chosen
from splat.training.context import Context
from splat.training.strategy import Strategy

CONTRIBUTION = "prune_contribution"


@dataclass(frozen=True)
class SpectralConfig:
    """Options of pruning."""

    keep: float = 0.5
    """Share of the Gaussians that is left at the end."""
    method: Method = "spectral"
    """What decides: the graph's spectrum, opacity, contribution to the training views, or chance."""
    gamma: float = 1.0
    """Share of the survivors taken from the top of the graph's answers; the others are from the bottom."""
    pick: Pick = "spread"
    """Take the extreme answers; or in proportion to the answer, drawn at random or spread out evenly."""
    neighbours: int = 16
    """Nearest neighbours that each Gaussian is joined with."""
    form: Form = "paper"
    """Edge weights and score as in the paper, or as in its authors' released code."""
    signals: tuple[Signal, ...] = ("opacity",)
    """What is filtered; several count alike. As published: position, gamma 0.5, pick extremes."""
    start: float = 0.5
    """First pruning, as a share of the run."""
    stop: float = 0.5
    """Last pruning, as a share of the run."""
    times: int = 1
    """How many prunings there are from start to stop, each leaving the same share of what it finds."""
    window: int = 200
    """Steps over which the contribution is added up, for that method."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise UsageError(f"spectral: keep must lie in (0, 1], got {self.keep}")
        if not 0 <= self.gamma <= 1:
            raise UsageError(f"spectral: gamma must lie in [0, 1], got {self.gamma}")
        if self.method not in METHODS:
            raise UsageError(f"spectral: no method {self.method!r}; choose from {', '.join(METHODS)}")
        if not 0 < self.start <= self.stop <= 1:
            raise UsageError(f"spectral: 0 < start <= stop <= 1 is needed, got {self.start} and {self.stop}")
        if self.times < 1 or (self.times > 1 and self.start == self.stop):
            raise UsageError(f"spectral: {self.times} prunings do not fit between start and stop")
        if self.neighbours < 1:
            raise UsageError(f"spectral: neighbours must be at least 1, got {self.neighbours}")
        if not self.signals:
            raise UsageError("spectral: name at least one signal")


class Spectral(Strategy):
    """Prunes once, or several times, to a share of the scene; what follows in the run is fine-tuning.

    The cap of the run falls to what is left, so that the density control beside it does not fill the scene again.
    """

    name: ClassVar[str] = "spectral"
    config_type: ClassVar[type] = SpectralConfig
    config: SpectralConfig

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config)
        self.cap: int | None = None
        if config.method == "contribution":
            self.needs = frozenset({"contribution"})

    def setup(self, ctx: Context) -> None:
        if self.config.method == "contribution":
            ctx.edits.track(CONTRIBUTION)

    def steps(self, horizon: int) -> list[int]:
        """The steps, counted from 1, after which a run of `horizon` steps prunes."""
        c = self.config
        shares = [c.start + (c.stop - c.start) * i / max(1, c.times - 1) for i in range(c.times)]
        return [max(1, round(share * horizon)) for share in shares]

    def needed(self, ctx: Context) -> frozenset[str]:
        return self.needs if ctx.training and self._within_window(ctx) else frozenset()

    def after_backward(self, ctx: Context) -> None:
        if self.cap is not None:  # again each step: a resumed run begins with the cap of its settings
            ctx.cap = min(ctx.cap, self.cap)
        if self.config.method == "contribution" and self._within_window(ctx):
            assert ctx.output.contribution is not None
            ctx.edits.state[CONTRIBUTION] += ctx.output.contribution.detach()

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        if ctx.step + 1 not in self.steps(ctx.steps):
            return
        c, before = self.config, len(ctx.gaussians)
        count = self._left(before)
        keep = chosen(
            ctx.gaussians,
            count,
            c.method,
            spectrum=Spectrum(c.gamma, c.pick, c.neighbours, c.form, c.signals),
            contribution=ctx.edits.state.get(CONTRIBUTION),
            generator=self._generator(ctx),
        )
        ctx.edits.remove(~keep)
        if c.method == "contribution":
            ctx.edits.state[CONTRIBUTION].zero_()
        self.cap = ctx.cap = count
        ctx.log("pruned", before - count)

    def forecast(self, count: int, cap: int, taken: int, steps: int) -> tuple[int, int]:
        if taken not in self.steps(steps):
            return count, cap
        left = self._left(count)
        return left, left

    def _left(self, count: int) -> int:
        """How many one pruning leaves of so many."""
        return max(1, round(count * self.config.keep ** (1 / self.config.times)))

    def state_dict(self) -> dict[str, Any]:
        return {"cap": self.cap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cap = state["cap"]

    def _within_window(self, ctx: Context) -> bool:
        return any(0 <= step - (ctx.step + 1) < self.config.window for step in self.steps(ctx.steps))

    @staticmethod
    def _generator(ctx: Context) -> torch.Generator:
        """On the CPU, where the scores are, seeded by the run's own."""
        device = ctx.generator.device
        seed = int(torch.randint(2**62, (1,), generator=ctx.generator, device=device))
        return torch.Generator().manual_seed(seed)
