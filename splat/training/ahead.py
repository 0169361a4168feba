"""Steps that the host takes before it knows that the device took the ones before."""

from __future__ import annotations

from collections import deque
from typing import Any


class Ahead:
    """Remembers what the host must return to if the device turns out to have refused a step.

    Attributes:
        guard: of the backend (splat.raster.cuda.Guard); kernels that change what is trained heed it.
    """

    def __init__(self, guard: Any) -> None:
        self.guard = guard
        self._states: deque[dict[str, Any]] = deque()  # before each step not yet known to be taken
        self._known = 0  # steps of the guard before those

    @property
    def pending(self) -> bool:
        """Whether a step is not yet known to be taken."""
        return bool(self._states)

    def begin(self, state: dict[str, Any]) -> None:
        """A guarded step follows; `state` is the host's before it."""
        self._states.append(state)

    def refused(self, *, wait: bool) -> dict[str, Any] | None:
        """The state before the first step that was refused, from which to go on; None if none is known to be.

        With `wait` everything is known. The steps from there on changed nothing on the device.
        """
        if wait and self._states:
            self.guard.settle()
        else:
            self.guard.listen()
        while self._known < self.guard.taken:
            self._states.popleft()
            self._known += 1
        if not self.guard.refused:
            return None
        self.guard.resume()
        state = self._states[0]
        self._states.clear()
        return state
