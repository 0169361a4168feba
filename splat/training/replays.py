"""How a step is enqueued on a GPU: kernel by kernel, or as the replay of a graph; whichever is faster there.

Between two refinements every step launches the same kernels on the same tensors. What differs comes to the device
before: the backend sends view and rates, the photograph and background are copied to tensors that keep their places,
and strategies' numbers are in `ctx.numbers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splat.core import DeviceError
from splat.raster import RenderOutput
from splat.training.context import Context
from splat.training.fastest import Fastest
from splat.training.views import View

WARM = 3
"""Steps of a kind that are taken before one is captured: then their kernels are loaded, their memory is there."""
FIRST = 100
"""Steps of a run before the ways are compared: the first ones wait for photographs."""


@dataclass
class Captured:
    """A graph of steps of one kind.

    Attributes:
        kind: of the steps, and how they are differentiated.
        graph: of the backend; its result is (loss, output).
        view: what it reads: photograph, mask and background are at their places.
    """

    kind: Hashable
    graph: Any
    view: View

    def show(self, view: View) -> None:
        """Put the photograph and background of the next replay in place."""
        for place, new in (
            (self.view.target, view.target),
            (self.view.mask, view.mask),
            (self.view.background, view.background),
        ):
            if place is not None and new is not None:
                place.copy_(new, non_blocking=True)

    @property
    def result(self) -> tuple[Tensor, RenderOutput]:
        """(loss, output) of the last replay."""
        return self.graph.result


class Replays:
    """Decides for every step, and keeps the latest graph."""

    def __init__(self, ctx: Context, backend: Any, guard: Any) -> None:
        self._ctx, self._backend, self._guard = ctx, backend, guard
        self._ways = list(backend.ways)
        self._fastest: Fastest[Any] | None = Fastest(self._ways, None) if len(self._ways) == 1 else None
        self._compared_at = 0  # number of Gaussians
        self._kind: Hashable | None = None
        self._seen = 0  # steps of that kind in a row
        self._captured: Captured | None = None

    def next(self, kind: Hashable | None, view: View) -> Any:
        """The way of the next step (splat.raster.cuda.Way); None: as the backend does by default.

        Args:
            kind: steps of equal kinds may be replays of one another; None: this one is like no other.
        """
        self._seen = self._seen + 1 if kind == self._kind else 1
        if kind != self._kind:
            self._kind, self._captured = kind, None
        if kind is None:
            if self._fastest is not None:
                self._fastest.interrupted()
        elif self._due():
            self._compare(view)
        return None if self._fastest is None else self._fastest.way

    def took(self) -> None:
        """The step that `next` was asked for was enqueued."""
        if self._kind is None or self._fastest is None:
            return
        if self._fastest.way.captured and self._captured is None:
            self._fastest.interrupted()  # it came before its kind could be captured, and says nothing of replays
        else:
            self._fastest.took()

    def forget(self) -> None:
        """What was captured does not fit any more."""
        self._captured, self._seen = None, 0
        if self._fastest is not None:
            self._fastest.interrupted()

    def graph(
        self, way: Any, view: View, work: Callable[[View], tuple[Tensor, RenderOutput]]
    ) -> Captured | None:
        """What to replay for this step, captured of `work` if need be; None: the step is to be taken plainly.

        `work` enqueues a step like this one on the view that it is given.
        """
        if way is None or not way.captured or self._kind is None:
            return None
        kind = (self._kind, way)
        if self._captured is not None and self._captured.kind == kind:
            return self._captured
        self._captured = None  # its memory is for the next
        if self._seen <= WARM:
            return None
        place = replace(
            view,
            target=torch.empty_like(view.target),
            mask=None if view.mask is None else torch.empty_like(view.mask),
            background=torch.empty_like(view.background),
        )
        try:
            graph = self._guard.capture(lambda: work(place), self._ctx.generator)
        except (RuntimeError, DeviceError) as error:
            warnings.warn(f"a training step cannot be captured as a graph here: {error}", stacklevel=2)
            self._ways = [way for way in self._ways if not way.captured] or [replace(way, captured=False)]
            self._fastest = Fastest(self._ways[:1], None)
            return None
        self._captured = Captured(kind, graph, place)
        return self._captured

    @property
    def choice(self) -> str:
        """In words: the way of the steps, and the times by which it was chosen."""
        if self._fastest is None or self._fastest.chosen is None:
            return "not chosen yet"
        times = [f"{_name(way)} {ms:.3f} ms" for way, ms in self._fastest.times]
        return _name(self._fastest.chosen) + (f" ({', '.join(times)} a step)" if times else "")

    def _due(self) -> bool:
        """Whether the ways are to be compared: for the first time, or with twice as many Gaussians as then."""
        if len(self._ways) == 1:
            return False
        if self._fastest is None:
            return self._ctx.step >= FIRST
        return self._fastest.chosen is not None and len(self._ctx.gaussians) >= 2 * self._compared_at

    def _compare(self, view: View) -> None:
        self._compared_at = len(self._ctx.gaussians)
        ways = [way for way in self._ways if self._backend.has_room(way, self._guard, view.camera)]
        self._fastest = Fastest(ways or self._ways, self._backend.clock(self._ctx.gaussians.device))


def _name(way: Any) -> str:
    return f"by {way.backward}{', captured' if way.captured else ''}"
