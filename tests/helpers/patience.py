"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Seconds. Only a test that fails waits as long; a busy machine needs more than one would think.
PATIENCE = 180.0


def wait(
    condition: Callable[[], Any],
    said: Callable[[], Any] = str,
    *,
    seconds: float = PATIENCE,
    every: float = 0.01,
) -> Any:
    """What the condition returns once that is true; AssertionError with what is `said` where it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"waited in vain; {said()}")
