"""Between a trainer and a viewer: a slot that keeps the latest snapshot and a queue of commands.

Neither side ever waits for the other.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from splat.core import Gaussians

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """A scene in training as it is drawn at `step` of `end`; the tensors are the reader's own.

    `sh_degree` is the highest degree of the harmonics that is trained so far.
    """

    step: int
    end: int
    gaussians: Gaussians
    sh_degree: int
    loss: float


class Slot(Generic[T]):
    """Holds the newest value only. `wanted` tells the producer whether anyone would read it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._version = 0
        self.wanted = False

    def publish(self, value: T) -> None:
        with self._condition:
            self._value = value
            self._version += 1
            self._condition.notify_all()

    def latest(self, newer_than: int = 0, timeout: float | None = None) -> tuple[int, T | None]:
        """(version, value); waits up to `timeout` seconds for a version above `newer_than`."""
        with self._condition:
            self._condition.wait_for(lambda: self._version > newer_than, timeout)
            return self._version, self._value


class Commands:
    """Callables sent to the training thread, run between steps."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[Any], None]] = queue.SimpleQueue()

    def send(self, command: Callable[[Any], None]) -> None:
        self._queue.put(command)

    def drain(self, target: Any) -> int:
        """Run every waiting command on `target`; returns how many ran. Exceptions pass through."""
        count = 0
        while True:
            try:
                command = self._queue.get_nowait()
            except queue.Empty:
                return count
            command(target)
            count += 1
