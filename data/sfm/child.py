"""Structure from motion in a process of its own: COLMAP ends the process where one of its checks fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from splat.data.problems import DatasetError

_LEAST_FREE = 20_000_000  # bytes; with less a failure is put down to the disk
_FULL = ("disk is full", "No space left", "database or disk is full")
_PATIENCE = 2.0  # seconds for the process to leave by itself
_TAIL = 8_000  # bytes at the end of the log that are looked at

Told = Callable[[dict[str, Any]], None]


class Child:
    """The process, started with the first stage and kept for the next ones; a context manager.

    Args:
        job: the JSON file that says what to do; log.txt is beside it.
        lock: a descriptor that the process keeps open.
    """

    def __init__(self, job: Path, lock: int) -> None:
        self._job, self._lock = job, lock
        self._log = job.parent / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the process; what it was writing to the database is rolled back when that is next opened."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            process.stdin.close()  # at which it leaves
        process.terminate()
        timer = threading.Timer(_PATIENCE, process.kill)
        timer.start()
        process.wait()
        timer.cancel()
        process.stdout.close()

    def run(self, stage: str, told: Told) -> Any:
        """Run one stage of worker.py on the job as it is now, and wait for it.

        Args:
            told: called with every message but the last: {"done", "total"}.

        Returns:
            What the stage returns.

        Raises:
            DatasetError: the stage found what stops it, or the process died; the message has the log's path.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it died before: no answer will come
            process.stdin.write(f"{stage}\n".encode())
            process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if "result" in message:
                return message["result"]
            if "error" in message:
                raise DatasetError(**message["error"])
            told(message)
        raise _death(stage, process.wait(), self._log)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "splat.data.sfm.worker", str(self._job.resolve())],
                    stdin=subprocess.PIPE,  # which closes when this process ends, and so ends the child
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C comes here alone
                    pass_fds=(self._lock,),
                )
        return self._process


def _death(stage: str, code: int, log: Path) -> DatasetError:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        tail = file.read().decode(errors="replace")
    disk = os.statvfs(log.parent)
    if any(mark in tail for mark in _FULL) or disk.f_bavail * disk.f_frsize < _LEAST_FREE:
        return DatasetError(
            "disk-full",
            log.parent.parent,
            f"the disk is full; stopped at {stage}",
            "free some space and start the same command again: it goes on from here",
        )
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        remedy = "perhaps out of memory: start again with a smaller --max-size or fewer --features"
    else:
        remedy = "start the same command again, or try --mapper global or another --camera-model"
    lines = [line for line in tail.splitlines() if line.strip()]
    check = next((line for line in reversed(lines) if "Check failed" in line or "Error" in line), "")
    cause = f"structure from motion died at {stage} ({how})"
    return DatasetError("sfm-died", log, cause, remedy, check)
