"""Numbers of the device that the host reads without waiting for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Label = TypeVar("Label")

AHEAD = 32
"""Values that may be on their way; the host waits rather than run further ahead of the device."""


class Readback(Generic[Label]):
    """Scalars in the order in which they were sent: on the CPU at once, of a GPU some calls later."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Label, Tensor, Any]] = deque()

    def send(self, label: Label, value: Tensor) -> None:
        """Start copying a scalar to the host."""
        value = value.detach()
        if value.device.type != "cuda":
            self._pending.append((label, value, None))
            return
        arrived = torch.cuda.Event()
        with torch.cuda.device(value.device):
            host = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            arrived.record()
        self._pending.append((label, host, arrived))

    def forget(self, which: Callable[[Label], bool]) -> None:
        """Drop the values whose labels `which` picks."""
        self._pending = deque(entry for entry in self._pending if not which(entry[0]))

    def received(self, *, wait: bool = False) -> list[tuple[Label, float]]:
        """What has arrived since the last call; all, with `wait`."""
        values = []
        while self._pending:
            label, value, arrived = self._pending[0]
            if arrived is not None and not arrived.query():
                if len(self._pending) <= AHEAD and not wait:
                    break
                arrived.synchronize()
            self._pending.popleft()
            values.append((label, float(value)))
        return values
