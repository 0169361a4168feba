"""The GPU benchmark can only run where a GPU is; its rehearsal keeps it from rotting elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_dry_run(shared_data) -> None:
    """Every stage of the script that needs no GPU, with the emulated kernels in its place."""
    data = shared_data("garden").parent
    shared_data("chair")
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), "--dry-run", "memcheck", "times", "quality"],
        env=os.environ | {"PYTHON": sys.executable, "SPLAT_DATA": str(data), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "smoke: finite" in done.stdout
    assert "these figures mean nothing" in done.stdout
    assert "instances (of 480)" in done.stdout
    steps = ("", " quantized", " by pixels", " by splats", " captured by pixels", " captured by splats")
    for line in (*(f"step{name}, ms" for name in steps), "draw, ms"):
        ours, rival, _ = done.stdout.split(f"\n{line}")[1].split()[:3]
        assert float(ours) > 0
        assert float(rival) > 0
    state = {
        name: done.stdout.split(f"\nstate{name}, B per Gaussian")[1].split()[0] for name in ("", " quantized")
    }
    assert state == {"": "708.00", " quantized": "288.00"}
    counted = {
        name: float(done.stdout.split(f"\n{name} per step")[1].split()[0]) for name in ("launches", "waits")
    }
    assert 10 < counted["launches"] <= 28  # besides two of torch's
    assert counted["waits"] == 0
    # Of two backends that agree.
    assert float(done.stdout.split("difference of the two pictures: ")[1].split()[0]) < 1e-6
    for name in ("default", "mcmc", "stand-in"):
        assert f"chair, {name}: psnr" in done.stdout
    assert "written" not in done.stdout


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
