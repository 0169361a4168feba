"""The GPU benchmark can only run where a GPU is; its rehearsal keeps it from rotting elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rehearsal(shared_data) -> None:
    done = run("--rehearsal", "--data", shared_data("garden").parent)
    assert done.returncode == 0, done.stderr
    assert "these figures mean nothing" in done.stdout
    assert "instances (of 480)" in done.stdout
    for line in ("step, ms", "draw, ms", "blend backward"):
        assert line in done.stdout
    # The same backend on both sides draws the same picture.
    assert "difference of the two pictures: 0.00e+00" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured() -> None:
    done = run()
    assert done.returncode == 4
    assert "nothing was measured" in done.stderr
    assert done.stdout == ""
    script = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh")],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 4
    assert "nothing was built, checked or measured" in script.stderr
