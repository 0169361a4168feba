"""How much of the machine the viewer may take from training, and how large a picture that allows."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

BURST = 0.1  # seconds of work that may be saved up while nothing is drawn
_USED_SECONDS = 10.0  # over which what was used of late is averaged


class Budget:
    """A share of the time of a training, as a bucket that fills at `share` a second.

    What is spent is taken out, below zero if need be; nothing more is drawn until the debt is paid. Over any
    time T, what is spent stays within share * T + BURST and one last piece of work.

    Seconds are those of a watch, and spent are all those in which the viewer does anything: a training that is
    kept from a share of the time, even from all cores, is no slower than by that share. So the bound holds
    on any machine, however many cores it has and whatever else they do.

    Attributes:
        unlimited: nothing trains that could be slowed down.
        spent: seconds, in all.
    """

    def __init__(self, share: float = 0.1, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` is a fraction, 0 to 1."""
        self._clock = clock
        self._lock = threading.Lock()
        self._share = share
        self._saved = 0.0
        self._at = clock()
        self._recent = 0.0
        self._recent_at = clock()
        self.unlimited = False
        self.spent = 0.0

    @property
    def share(self) -> float:
        return self._share

    @share.setter
    def share(self, value: float) -> None:
        with self._lock:
            self._fill()
            self._share = value

    def spend(self, seconds: float) -> None:
        """Account for a piece of work that took `seconds` of the clock."""
        with self._lock:
            self._fill()
            self._age()
            self.spent += seconds
            self._recent += seconds
            if not self.unlimited:
                self._saved -= seconds

    @property
    def saved(self) -> float:
        """Seconds of work that may be done at once, at most BURST; negative while there is a debt."""
        with self._lock:
            self._fill()
            return BURST if self.unlimited else self._saved

    @property
    def used(self) -> float:
        """The share of the time that was spent of late."""
        with self._lock:
            self._age()
            return self._recent / _USED_SECONDS

    def wait(self) -> float:
        """Seconds until the next piece of work may begin; 0 where it may now."""
        if self.unlimited:
            return 0.0
        with self._lock:
            self._fill()
            return 0.0 if self._saved > -1e-6 else -self._saved / max(self._share, 1e-3)

    def _fill(self) -> None:
        now = self._clock()
        self._saved = min(BURST, self._saved + self._share * (now - self._at))
        self._at = now

    def _age(self) -> None:
        now = self._clock()
        self._recent *= math.exp(-(now - self._recent_at) / _USED_SECONDS)
        self._recent_at = now


class Ladder:
    """Chooses how coarse a picture is so that it is made in time.

    Rungs are divisors of the full size. What each costs is measured as it is drawn; one that was not drawn
    yet is expected to cost what its pixels suggest, and no less than half of its neighbour, since part of the
    work (projection, sorting) goes by Gaussian and not by pixel. Now and then the next finer rung is tried,
    as what it cost once may be long past.
    """

    RUNGS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    _WEIGHT = 0.4  # of the latest measurement
    _TRY_EVERY = 8  # pictures
    _TRY_COST = 4.0  # times what is allowed, above which a finer rung is not tried

    def __init__(self) -> None:
        self._cost: dict[int, float] = {}
        self._full = (0, 0)
        self._since = 0

    def size(self, full: tuple[int, int], rung: int) -> tuple[int, int]:
        divisor = self.RUNGS[rung]
        return max(1, round(full[0] / divisor)), max(1, round(full[1] / divisor))

    def choose(self, full: tuple[int, int], seconds: float) -> int:
        """The finest rung that is expected to take at most `seconds`; the coarsest where none is."""
        if full != self._full:
            if self._full[0]:
                scale = (full[0] * full[1]) / (self._full[0] * self._full[1])
                self._cost = {rung: cost * scale for rung, cost in self._cost.items()}
            self._full = full
        last = len(self.RUNGS) - 1
        rung = next((rung for rung in range(last) if self.expected(rung) <= seconds), last)
        self._since += 1
        if rung and self._since >= self._TRY_EVERY and self.expected(rung - 1) <= self._TRY_COST * seconds:
            self._since = 0
            return rung - 1
        return rung

    def expected(self, rung: int) -> float:
        """Seconds that the rung is expected to take."""
        if rung in self._cost:
            return self._cost[rung]
        if not self._cost:
            # Nothing is known: a coarse one first, which shows something soon and tells about the others.
            return 0.0 if rung >= 4 else float("inf")
        near = min(self._cost, key=lambda known: abs(known - rung))
        pixels = (self.RUNGS[near] / self.RUNGS[rung]) ** 2
        return self._cost[near] * (pixels if pixels >= 1 else max(pixels, 0.5))

    def record(self, rung: int, seconds: float) -> None:
        """Enter what a picture on the rung took; the other rungs follow half of the change."""
        new = seconds
        if self._cost:
            old = self.expected(rung)
            if rung in self._cost:
                new = (1 - self._WEIGHT) * old + self._WEIGHT * seconds
            change = math.sqrt(new / old) if old > 0 else 1.0
            self._cost = {other: cost * change for other, cost in self._cost.items()}
        self._cost[rung] = new
