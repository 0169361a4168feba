"""Longer work for a visitor, in a thread of its own: it can be called off, and takes no more than its share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat.viewer.client import Client

_NAP_SECONDS = 0.1
# That a piece of work counts for, at most: a person has asked for it, and a file that takes long to write must not keep
# everybody's picture still for minutes.
_COUNTED_SECONDS = 0.5


class CalledOff(Exception):
    """The visitor does not want the outcome any more."""


class Job:
    """A piece of work that asks `go_on` whenever it could stop.

    While something trains, that is also where it waits until the viewer's budget allows more.

    Attributes:
        running: whether it is under way.
    """

    def __init__(self, client: Client, name: str, do: Callable[[Job], Any]) -> None:
        """Starts at once; what `do` raises, but for CalledOff, is told to the visitor."""
        self._client = client
        self._budget = client.viewer.budget
        self._called_off = threading.Event()
        self._since = 0.0
        self.running = True
        self._do = do
        self._thread = client.work(name, self._run)

    def cancel(self) -> None:
        """Have it end at the next opportunity."""
        self._called_off.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    @property
    def cancelled(self) -> bool:
        """Whether it was called off, or the visitor has gone."""
        return self._called_off.is_set() or self._client.closed

    def go_on(self) -> bool:
        """Whether to go on. Called by the work itself."""
        self._budget.spend(min(_COUNTED_SECONDS, time.monotonic() - self._since))
        while not self.cancelled:
            wait = self._budget.wait()
            if wait <= 0:
                self._since = time.monotonic()
                return True
            self._called_off.wait(min(wait, _NAP_SECONDS))
        return False

    def _run(self) -> None:
        self._since = time.monotonic()
        try:
            with contextlib.suppress(CalledOff):
                self._do(self)
        finally:
            self.running = False
