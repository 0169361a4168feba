"""What a visitor does on the page, one thing after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


def value(event: Any) -> Any:
    """What was chosen, of an event: of two buttons of a group in quick succession each has its own."""
    return event.target.value


class Actions:
    """Does what is asked for in the order in which it was asked for, in a thread of its own.

    viser's own pool of threads does two things at once where they come quickly, in any order.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, do: Callable[[], Any]) -> None:
        """`do` it when its turn comes. Always from the same thread, viser's."""
        if self._closed:
            return
        self._waiting.put(do)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, daemon=True, name=self._name)
            self._thread.start()

    def close(self) -> None:
        """What is under way is finished, what waits is not begun."""
        self._closed = True
        self._waiting.put(None)

    def _run(self) -> None:
        while (do := self._waiting.get()) is not None and not self._closed:
            do()
