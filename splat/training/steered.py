"""How people steer a run: pause, go on, stop, extend, edit by hand. Commands call this between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from splat.link import Commands, Snapshot, Turns
from splat.training.byhand import ByHand
from splat.training.context import Context


class Steered:
    """A loop that obeys.

    Attributes:
        end: step at which it returns.
        commands: run between steps, with the loop as their argument.
        idlers: called with the loop again and again while it is paused.
        turns: of who draws between steps.
        paused, stopping: obeyed between steps.
        by_hand: what people take out of the scene.
        revision: counts what commands did to the scene.
    """

    def __init__(self, ctx: Context, commands: Commands) -> None:
        self.ctx = ctx
        self.commands = commands
        self.turns = Turns()
        self.end = ctx.steps
        self.idlers: list[Callable[[Any], None]] = []
        self.paused = False
        self.stopping = False
        self.by_hand = ByHand(ctx.main)
        self.revision = 0
        self._pause_at: int | None = None

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
