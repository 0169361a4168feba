"""A tiny dataset, a short run on it, and the command called as a user would call it."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from splat.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        """The first line on stderr."""
        return self.err.splitlines()[0] if self.err else ""


@pytest.fixture(scope="session")
def splat() -> Callable[..., Outcome]:
    """splat(*args) -> Outcome, in this process."""

    def run(*args: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in args])
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen]:
    """start(*args, cwd=...) -> a process of its own that runs the command."""

    def run(*args: object, cwd: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "splat", *map(str, args)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A shell's background job ignores SIGINT, and so would what it starts.
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, cwd=cwd, text=True, **pipes)
        finally:
            signal.signal(signal.SIGINT, heard)

    return run


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The sample scene, small: 12 photographs of 64x48 pixels and 400 points. Not to be changed."""
    from splat.data.sample import write_sample

    folder = tmp_path_factory.mktemp("cli") / "sample"
    return write_sample(folder, views=12, width=64, height=48, points=400, samples=1, truth=False)


@pytest.fixture(scope="session")
def steps() -> int:
    """Length of `run`."""
    return 60


@pytest.fixture(scope="session")
def run(splat, sample, steps, tmp_path_factory) -> Path:
    """A finished run with two views held out. Not to be changed."""
    out = tmp_path_factory.mktemp("cli") / "run"
    done = splat("train", sample, "--preset", "cpu", "--steps", steps, "--eval", "--out", out)
    assert done.code == 0, done.err
    return out
