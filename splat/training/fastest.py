"""A choice between ways to do the same, made by a clock."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

Way = TypeVar("Way")

BLOCK = 6
"""Steps in a row that are taken one way while the ways are compared."""
ROUNDS = 3
"""Blocks of every way."""


class Clock(Protocol):
    """Tells when a device gets to a point of its work."""

    def mark(self) -> object:
        """A point, behind all that was enqueued so far."""

    def milliseconds(self, begin: object, end: object) -> float | None:
        """Between two points; None while that is not known. Never waits."""


class Fastest(Generic[Way]):
    """Tries every way in turn, in ROUNDS blocks of BLOCK steps each, then keeps to the one whose steps took least.

    What counts is the median of the times from the end of a step to the end of the next, so that a wait of the
    host shows as well as work of the device, and a rare hindrance does not. The first step of a block, which may
    have to prepare what is new, is left out.

    Attributes:
        chosen: the way to which it keeps; None while it tries.
    """

    def __init__(self, ways: Sequence[Way], clock: Clock | None) -> None:
        """`clock` may be None where there is one way."""
        self._ways, self._clock = list(ways), clock
        self.chosen: Way | None = self._ways[0] if len(self._ways) == 1 else None
        self._taken = 0
        self._last: object | None = None
        self._pending: deque[tuple[int, object, object]] = deque()
        self._times: list[list[float]] = [[] for _ in self._ways]

    @property
    def way(self) -> Way:
        """Of the next step."""
        return self._ways[self._turn] if self.chosen is None else self.chosen

    @property
    def times(self) -> list[tuple[Way, float]]:
        """Milliseconds of the ways that were tried."""
        return [(way, statistics.median(t)) for way, t in zip(self._ways, self._times, strict=True) if t]

    @property
    def _turn(self) -> int:
        return self._taken // BLOCK % len(self._ways)

    def took(self) -> None:
        """A step was enqueued, that way."""
        if self.chosen is not None:
            return
        assert self._clock is not None
        mark, turn = self._clock.mark(), self._turn
        if self._last is not None:
            self._pending.append((turn, self._last, mark))
        self._taken += 1
        self._last = mark if self._taken % BLOCK else None
        while self._pending:
            turn, begin, end = self._pending[0]
            spent = self._clock.milliseconds(begin, end)
            if spent is None:
                return
            self._pending.popleft()
            self._times[turn].append(spent)
        if self._taken >= ROUNDS * BLOCK * len(self._ways):
            self.chosen = min(self.times, key=lambda pair: pair[1])[0]

    def interrupted(self) -> None:
        """Something else comes between two steps: the block begins anew."""
        self._last = None
        self._taken -= self._taken % BLOCK
