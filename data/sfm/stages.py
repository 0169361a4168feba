"""What has been done already: one file that says which stages are finished, and from what.

A stage is done again where anything that it depends on has changed: its settings, the stages before it, the versions of
what computes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from splat.core import DataError
from splat.core.files import replacing

State = Literal["fresh", "begun", "done"]
_PATIENCE = 10.0  # seconds for the child of a killed command to notice and leave


def key(*parts: Any) -> str:
    """A fingerprint of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Ledger:
    """The stages of one dataset as `process/stages.json` has them: {stage: {key, done, seconds, result}}."""

    path: Path

    def __post_init__(self) -> None:
        self._stages: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._stages = {n: s for n, s in found.items() if isinstance(s, dict) and "key" in s}

    def state(self, stage: str, key: str) -> State:
        """Whether the stage is finished, or begun, from exactly this."""
        found = self._stages.get(stage)
        if found is None or found["key"] != key:
            return "fresh"
        return "done" if found.get("done") else "begun"

    def result(self, stage: str) -> Any:
        return self._stages[stage]["result"]

    def seconds(self, stage: str) -> float:
        """Time that the stage has taken, over all attempts."""
        return float(self._stages.get(stage, {}).get("seconds", 0.0))

    def begin(self, stage: str, key: str, after: list[str]) -> None:
        """Note that the stage is being worked on; what comes `after` it holds no more."""
        seconds = self.seconds(stage) if self.state(stage, key) == "begun" else 0.0
        self._stages = {name: s for name, s in self._stages.items() if name not in after}
        self._stages[stage] = {"key": key, "done": False, "seconds": seconds}
        self._write()

    def spent(self, stage: str, seconds: float) -> None:
        self._stages[stage]["seconds"] = self.seconds(stage) + seconds
        self._write()

    def finish(self, stage: str, seconds: float, result: Any) -> None:
        self._stages[stage] |= {"done": True, "seconds": self.seconds(stage) + seconds, "result": result}
        self._write()

    def _write(self) -> None:
        with replacing(self.path) as file:
            file.write(json.dumps(self._stages, indent=1).encode())


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A file that one command holds at a time; gives its descriptor, which a child keeps open as well.

    Raises:
        DataError: another command works on the same dataset.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise DataError(
                        f"{path.parent.parent}: another `splat process` works on it; wait for it, or name "
                        "another folder"
                    ) from None
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)
