"""The mathematics of cuda/include/splat compiles for the GPU, where the CUDA compiler is at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CUDA = Path(__file__).resolve().parents[2] / "cuda"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_headers_compile_for_the_device(tmp_path: Path) -> None:
    source, include, out = CUDA / "tests/headers.cu", CUDA / "include", tmp_path / "headers.o"
    command = [
        "nvcc",
        "-std=c++20",
        "--Werror=all-warnings",
        f"-I{include}",
        "-c",
        str(source),
        "-o",
        str(out),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
