"""The CPU kernels on another processor: built for 64-bit ARM and run by an emulator, against this machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "cuda" / "src" / "cpu"
KERNELS = (
    "blend_backward",
    "blend_forward",
    "photometric",
    "project",
    "project_backward",
    "quantize",
    "raster",
)
PARTS = ("binning", "guided", "isa", "mixing", "photometric", "quantize", "rans", "raster", "thread_pool")
# As cuda/CMakeLists.txt has them.
OPTIONS = [
    "-std=c++20",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-DSPLAT_ISA=baseline",
]
FOLDERS = [f"-I{ROOT / 'cuda' / 'include'}", f"-I{CPU}"]
# Of the largest value. Both round as float32 does, one of them with fused multiply-add.
BOUNDS = {
    "image": 1e-5,
    "depth": 1e-4,
    "loss": 1e-6,
    "gradient": 1e-5,
    "coded": 0,
    "mixed": 0,
    "byte": 0,
    "label": 0,
}


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: apt-get install g++-aarch64-linux-gnu qemu-user-static")
    return found


def printed(compiler: str, emulator: list[str], folder: Path) -> dict[str, np.ndarray]:
    """What portable.cpp prints when it is built by the compiler and run by the emulator, by name."""
    sources = [CPU / "kernels" / f"{name}.cpp" for name in KERNELS] + [CPU / f"{name}.cpp" for name in PARTS]
    outcome = folder / "portable"
    main = Path(__file__).with_name("portable.cpp")
    subprocess.run(
        [
            compiler,
            *OPTIONS,
            *FOLDERS,
            *map(str, sources),
            str(main),
            "-static",
            "-pthread",
            "-o",
            str(outcome),
        ],
        check=True,
    )
    lines = subprocess.run(
        [*emulator, str(outcome)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "SPLAT_ISA": "baseline"},
    ).stdout.splitlines()
    found = defaultdict(list)
    for line in lines:
        name, value = line.split()
        found[name].append(float(value))
    return {name: np.array(values) for name, values in found.items()}


def test_another_processor_computes_the_same(tmp_path):
    emulator, compiler = program("qemu-aarch64-static"), program("aarch64-linux-gnu-g++")
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = printed(program("g++"), [], tmp_path / "here")
    there = printed(compiler, [emulator], tmp_path / "there")
    assert here.keys() == there.keys() == BOUNDS.keys()
    assert there["coded"][0] == 1  # decoded as it was
    assert np.abs(here["gradient"]).max() > 1e-3
    for name, bound in BOUNDS.items():
        assert np.abs(here[name] - there[name]).max() <= bound * np.abs(here[name]).max(), name
