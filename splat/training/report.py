"""What a run says: the progress line, log.txt, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

from splat.core.clock import clock
from splat.training import memory
from splat.training.runfolder import RunFolder

PLAIN_SECONDS = 10.0  # between two progress lines where there is no terminal
LIVE_SECONDS = 0.2  # between two updates of the line on a terminal


class Reporter:
    """Writes to the run's folder and to the terminal; nothing else prints during a run."""

    def __init__(self, folder: RunFolder, *, quiet: bool = False, cut_to: int = 0) -> None:
        """`cut_to` is the step that the run goes on from: later lines of metrics.jsonl are dropped."""
        self.folder = folder
        self.quiet = quiet
        folder.cut_metrics(cut_to)
        self._log = open(folder.log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._metrics = open(folder.metrics, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._board = _tensorboard(folder)
        self._live: Any = None
        self._shown = time.monotonic()
        self._rate = _Rate(cut_to)
        if self._board is None:
            self.log("TensorBoard is not installed; metrics go to metrics.jsonl alone")
        if not quiet and sys.stdout.isatty():
            from rich.live import Live

            # The line goes when the run ends: what it came to is told by the log.
            self._live = Live(refresh_per_second=8, transient=True)
            self._live.start()

    def log(self, message: str) -> None:
        """A dated line of log.txt, and the same on the terminal."""
        self._log.write(f"{time.strftime('%H:%M:%S')} {message}\n")
        if self._live is not None:
            self._live.console.print(message, highlight=False, markup=False, soft_wrap=True)
        elif not self.quiet:
            print(message, flush=True)

    def metrics(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; `step` is among the values."""
        self._metrics.write(json.dumps(values) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, values["step"])

    def due(self) -> bool:
        """Whether it is time for another progress line."""
        interval = LIVE_SECONDS if self._live is not None else PLAIN_SECONDS
        return not self.quiet and time.monotonic() - self._shown >= interval

    def progress(self, step: int, end: int, loss: float, psnr: float, count: int) -> None:
        """The progress line; `step` steps of `end` are done."""
        self._shown = time.monotonic()
        rate = self._rate.update(step)
        score = "-" if math.isnan(psnr) else f"{psnr:.2f}"
        left = clock((end - step) / rate) if rate > 0 else "-"
        line = (
            f"step {step:,}/{end:,}  ETA {left}  loss {loss:.4f}  PSNR {score}  {count:,} Gaussians  "
            f"{rate:.1f} it/s  {memory.resident() / 1e6:,.0f} MB"
        )
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
        else:
            print(line, flush=True)

    def apart(self, seconds: float) -> None:
        """So much time was spent on other things than steps: the rate does not count it."""
        self._rate.skip(seconds)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
        if self._board is not None:
            self._board.close()
        self._log.close()
        self._metrics.close()


class _Rate:
    """Steps per second, smoothed over the last few updates."""

    def __init__(self, step: int) -> None:
        self._last = (time.monotonic(), step)
        self._value = 0.0

    def skip(self, seconds: float) -> None:
        self._last = (self._last[0] + seconds, self._last[1])

    def update(self, step: int) -> float:
        now = time.monotonic()
        if now > self._last[0] and step > self._last[1]:
            latest = (step - self._last[1]) / (now - self._last[0])
            self._value = latest if self._value == 0 else 0.7 * self._value + 0.3 * latest
        self._last = (now, step)
        return self._value


def _tensorboard(folder: RunFolder) -> Any:
    """A SummaryWriter, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder.tensorboard))
