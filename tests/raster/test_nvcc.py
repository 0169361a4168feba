"""The GPU's sources, compiled by nvcc for sm_90 where it is at hand: no warning, and nothing spilled."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CUDA = Path(__file__).resolve().parents[2] / "cuda"
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = [*sorted((CUDA / "src/cuda").glob("*.cu")), CUDA / "tests/headers.cu"]

_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<spilled>\d+) bytes spill stores.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


class Kernel(NamedTuple):
    """What ptxas says of a kernel; bytes."""

    name: str
    registers: int
    spilled: int
    shared: int


def parse(report: str) -> list[Kernel]:
    """The kernels in the output of ptxas -v, under the names of their functions."""
    kernels = []
    for match in _ENTRY.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        kernels.append(
            Kernel(
                match["name"],
                int(match["registers"]),
                int(match["spilled"]),
                int(shared[1]) if shared else 0,
            )
        )
    return kernels


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_compiles_for_the_device(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the options of cuda/gpu.cmake; prints the registers and shared memory of each kernel."""
    options = ["-std=c++20", "-arch=sm_90", "--Werror=all-warnings", "-Xptxas=-v"]
    if source.name.startswith("blend_"):
        options.append("--use_fast_math")
    includes = [f"-I{CUDA / 'include'}", f"-I{CUDA / 'src/cuda'}"]
    command = [NVCC, *options, *includes, "-cubin", str(source), "-o", str(tmp_path / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kernels = parse(result.stderr)
    assert len(kernels) == result.stderr.count("Compiling entry function")
    # Kernels of libraries (CUB) spill as they please.
    ours = [k for k in kernels if k.name.startswith("_ZN5splat")]
    with capsys.disabled():
        for kernel in ours:
            print(
                f"\n{source.name}: {_readable(kernel.name)}: {kernel.registers} registers, {kernel.spilled} bytes "
                f"spilled, {kernel.shared} bytes shared",
                end="",
            )
    assert [kernel for kernel in ours if kernel.spilled] == []


def _readable(mangled: str) -> str:
    """The last component of a mangled nested name: its kernel's own name."""
    rest, name = mangled[3:], mangled
    while match := re.match(r"(\d+)(.*)", rest):
        length = int(match[1])
        name, rest = match[2][:length], match[2][length:]
    return name


def test_spills_are_read() -> None:
    """A report of ptxas 13.0 with a kernel that spills and one that does not."""
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5splat3gpu3twoEv' for 'sm_90'
ptxas info    : Function properties for _ZN5splat3gpu3twoEv
    24 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size, 19456 bytes smem
ptxas info    : Compile time = 140.521 ms
ptxas info    : Compiling entry function '_ZN5splat3gpu5threeEv' for 'sm_90'
ptxas info    : Function properties for _ZN5splat3gpu5threeEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers
"""
    assert parse(report) == [
        Kernel("_ZN5splat3gpu3twoEv", 255, 16, 19456),
        Kernel("_ZN5splat3gpu5threeEv", 24, 0, 0),
    ]
    assert _readable("_ZN5splat3gpu3twoEv") == "two"
