"""How far `splat process` has come, for people."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from splat.core.clock import clock

if TYPE_CHECKING:
    from splat.link import StageProgress

PLAIN_SECONDS = 10.0  # between two progress lines where there is no terminal
LIVE_SECONDS = 0.2


class Console:
    """Prints the progress of stages: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._live = stream, stream.isatty()
        self._lock = threading.Lock()  # a viewer says something, too
        self._start = self._shown = 0.0
        self._first: int | None = None
        self._width = 0
        self._ended: list[str] = []
        self._now, self._share = "", 0.0

    def begin(self, stage: str, kept: bool) -> None:
        self._start = self._shown = time.monotonic()
        self._first = None
        if kept:
            self._over(f"{stage}: kept from before")
        else:
            self._now, self._share = stage, 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = done, now
        steps = done - self._first
        left = f"  ETA {clock((now - self._start) * (total - done) / steps)}" if steps else ""
        count = f"{100 * done // total}%" if stage == "photographs" else f"{done:,}/{total:,}"
        self._now, self._share = f"{stage}: {count}{left}", done / max(1, total)
        if now - self._shown >= (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            self._shown = now
            self.say(self._now, passing=self._live)

    def end(self, stage: str, seconds: float, result: Any) -> None:
        self._over(f"{stage}: {_outcome(stage, result)} ({clock(seconds)})")

    def progress_now(self) -> StageProgress:
        """The same for a viewer."""
        from splat.link import StageProgress

        return StageProgress(tuple(self._ended), self._now, self._share)

    def close(self) -> None:
        """Leave the line."""
        with self._lock:
            if self._width:
                print(file=self._stream)
                self._width = 0

    def say(self, line: str, passing: bool = False) -> None:
        """Print a line, in place of the one that passes."""
        with self._lock:
            start = "\r" if self._width else ""
            end = "" if passing else "\n"
            print(f"{start}{line:<{self._width}}", end=end, file=self._stream, flush=True)
            self._width = len(line) if passing else 0

    def _over(self, line: str) -> None:
        """A stage is finished."""
        self._ended.append(line)
        self._now, self._share = "", 1.0
        self.say(line)


def _outcome(stage: str, result: dict[str, Any]) -> str:
    if stage == "photographs":
        left = f", {len(result['skipped'])} left out" if result["skipped"] else ""
        masked = sum(picture["masked"] for picture in result["pictures"])
        return f"{len(result['pictures'])}{left}" + (f", {masked} with masks" if masked else "")
    if stage == "features":
        counts = sorted(result["features"].values())
        return f"{counts[0]:,} to {counts[-1]:,} in a photograph"
    if stage == "matches":
        return f"{result['verified']:,} of {result['pairs']:,} pairs overlap"
    if stage == "mapping":
        return f"{result['models'][0]['images']} photographs posed by the mapper {result['attempt']}"
    if stage == "model":
        return f"{result['points']:,} points, reprojection error {result['error']:.2f} px"
    if stage == "stereo":
        return f"{result['points']:,} points, {100 * result['known']:.0f}% of the depths"
    return result["folder"]
