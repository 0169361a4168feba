"""The wheel: what is in it, and that it works outside the repository."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _architectures() -> str:
    """Those of the GPU kernels of this environment."""
    try:
        from splat import _cuda
    except ImportError:
        return "90-real"
    return _cuda.ARCHITECTURES.replace(" ", ";")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as pip builds it, with the tools of this environment; objects in build/ are used again."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
    ]
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    done = subprocess.run(
        [*pip, "--no-index", "-w", str(out), str(ROOT)],
        # One GPU architecture instead of all: the objects of the development build will do.
        env={**os.environ, "PATH": path, "SPLAT_CUDA_ARCHITECTURES": _architectures()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("splat-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of executables of a fresh environment with the wheel, beside this environment's packages."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    subprocess.run([*pip, "-q", "--no-index", "--no-deps", str(wheel)], check=True)
    # The packages of this environment, but not its editable install of splat: .pth files are not followed here.
    # The example plugin is installed here by such a link, too: its metadata would be found without its module.
    others = [p for p in sys.path if p.endswith("site-packages")] + [str(ROOT / "examples" / "ges")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return python.parent


def run(program: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(program), *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_contents(wheel):
    """What the sources have (modules, presets, the page), the native modules (the GPU's where built), nothing else."""
    table = {"splat": "splat", "splat/data": "data", "splat/viewer": "viewer", "splat/configs": "configs"}
    expected = {
        f"{package}/{file.relative_to(ROOT / folder).as_posix()}"
        for package, folder in table.items()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".typed") or (file.is_file() and file.parent.name == "assets")
    }
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    native = {n for n in names if n.startswith(("splat/_native.", "splat/_cuda."))}
    assert len(native) == (1 if importlib.util.find_spec("splat._cuda") is None else 2)
    assert names - native == expected
    assert {"splat/data/colmap.py", "splat/viewer/__init__.py", "splat/configs/cpu.yaml"} <= names


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
    text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.10" in text
    assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
    (entries,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
    assert "splat = splat.cli:main" in archive.read(entries).decode()


def test_the_wheel_trains_and_exports_outside_the_repository(installed, tmp_path):
    """Data, presets and the native module are those of the wheel."""
    python, splat = installed / "python", installed / "splat"
    where = run(python, "-c", "import splat, splat.data, splat._native as n; print(n.__file__)", cwd=tmp_path)
    assert where.returncode == 0, where.stderr
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    code = "from splat.data.sample import write_sample; write_sample('data', views=6, width=48, height=36, samples=1)"
    made = run(python, "-c", code, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    flags = ("--preset", "cpu", "--steps", "5", "--eval", "--out", "run")
    done = run(splat, "train", "data", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = run(splat, "export", "run", "scene.ply", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "scene.ply").stat().st_size > 10_000
