"""What holds for every command: help, dispatch, exit codes, errors."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
import types

import pytest

import splat as package
from splat.cli import COMMANDS, explain
from splat.core import DataError, DeviceError, Interrupted, SplatError, UsageError


def python(code: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, text=True, capture_output=True, check=False)


def test_help_names_every_command(splat):
    done = splat("--help")
    assert done.code == 0
    for name, (operands, summary) in COMMANDS.items():
        assert f"{name} {operands}".rstrip() in done.out
        assert summary in done.out
    assert splat("help").out == splat("-h").out == done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_is_worth_reading(splat, name):
    done = splat(name, "--help")
    assert done.code == 0
    assert f"usage: splat {name}" in done.out
    assert "Examples:" in done.out
    assert f"splat {name}" in done.out.split("Examples:")[1]
    assert "default: " in done.out
    assert "(default: )" not in done.out
    assert splat("help", name).out == done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_wrapped_to_the_terminal(splat, name, monkeypatch):
    """All but examples and lists, which are for copying."""
    monkeypatch.setenv("COLUMNS", "70")
    shown = splat(name, "--help").out
    assert "show this help message" in shown  # tyro's own part is still there
    assert [line for line in shown.splitlines() if len(line) > 70 and not line.startswith("  ")] == []
    assert "\n\n\n" not in shown


def test_help_and_version_answer_at_once(tmp_path):
    """Neither imports torch, whose import alone takes more than the second that --help may take."""
    code = (
        "import sys; from splat.cli import main; assert main(['--help']) == 0; assert main(['--version']) == 0;"
        "assert main(['trian']) == 2; assert 'torch' not in sys.modules and 'tyro' not in sys.modules"
    )
    begin = time.monotonic()
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 1


def test_version(splat):
    assert splat("--version").out == f"splat {package.__version__}\n"


def test_no_command_is_a_usage_error(splat):
    done = splat()
    assert done.code == 2
    assert done.out == ""
    assert "usage: splat" in done.err


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "'train'"), ("exprot", "'export'"), ("zzz", "doctor, demo")]
)
def test_an_unknown_command_suggests_the_nearest(splat, typed, meant):
    done = splat(typed)
    assert done.code == 2
    assert meant in done.first


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error(splat, name):
    operands = {"export": ["a", "b.ply"], "doctor": [], "demo": []}.get(name, ["a"])
    done = splat(name, *operands, "--no-such-option")
    assert done.code == 2
    assert "--no-such-option" in done.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SplatError("a"), 1, "a"),
        (UsageError("b"), 2, "b"),
        (DataError("c"), 3, "c"),
        (DeviceError("d"), 4, "d"),
        (Interrupted("e"), 130, "e"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("none left"), 4, "--downscale"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 3, "/x/y: No space left on device: free"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "--out"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 3, "/x/y: Permission denied: change"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), 3, "name a place that you may write to"),
        (ValueError("odd"), 1, "ValueError: odd"),
    ],
)
def test_every_error_has_its_exit_code(error, code, said):
    found, message = explain(error)
    assert found == code
    assert said in message.splitlines()[0]


def test_a_traceback_only_with_debug(splat, monkeypatch, tmp_path):
    import splat.cli.info as info

    def broken(path):
        raise ValueError("odd")

    monkeypatch.setattr(info, "describe", broken)
    plain, debugged = splat("info", tmp_path), splat("info", tmp_path, "--debug")
    assert plain.code == debugged.code == 1
    assert len(plain.err.splitlines()) == 1
    assert "Traceback" in debugged.err
    assert plain.err in debugged.err


def test_a_reader_that_leaves_early_is_no_crash(tmp_path):
    """As in `splat --help | head -1`: the pipe is closed before anything is written."""
    code = (
        "import os, sys; from splat.cli import main; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
        "sys.exit(main(['--help']))"
    )
    done = python(code, tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""


def test_doctor(splat):
    import json

    done = splat("doctor", "--json")
    report = json.loads(done.out)
    assert done.code == 0
    assert report["ok"] is True
    checks = {c["name"]: c for c in report["checks"]}
    assert {"splat", "python", "machine", "torch", "native module", "memory", "disk", "ffmpeg"} <= set(checks)
    assert {"pycolmap", "viser", "open3d", "gsplat", "tensorboard", "lpips"} <= set(checks)
    from splat import _native

    assert _native.isa() in checks["native module"]["found"]
    for check in checks.values():
        assert check["status"] in ("ok", "note", "missing", "broken")
        assert check["status"] == "ok" or check["remedy"] or check["name"] == "gpu"


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        ("90-real", (9, 0), True),
        ("90-real", (10, 0), False),
        ("80-real", (8, 9), True),  # the same generation, a later revision
        ("89-real", (8, 6), False),
        ("90", (12, 0), True),  # by its PTX
        ("75-virtual", (7, 5), True),
        ("90a", (9, 0), True),
        ("90a", (10, 0), False),
        ("native", (9, 0), True),
        ("75-real 80-real 120", (7, 0), False),
    ],
)
def test_doctor_knows_which_gpus_a_build_runs_on(built, capability, runs):
    from splat.cli import doctor

    assert doctor.covers(built, *capability) is runs


@pytest.mark.parametrize(
    ("capability", "problem", "status", "says"),
    [
        (None, "", "ok", "sm_80, sm_90, PTX 90, CUDA 12.8; no GPU here"),
        ((9, 0), "", "ok", "sm_80, sm_90, PTX 90, CUDA 12.8"),
        ((7, 5), "", "missing", "a GPU here is of compute 7.5"),
        ((9, 0), "driver too old", "broken", "but the driver says: driver too old"),
    ],
)
def test_doctor_on_the_gpu_kernels(monkeypatch, capability, problem, status, says):
    import torch

    from splat.cli import doctor

    built = types.SimpleNamespace(ARCHITECTURES="80-real 90", CUDART=12080, device_problem=lambda: problem)
    monkeypatch.setitem(sys.modules, "splat._cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    (check,) = doctor._cuda()
    assert check.status == status
    assert says in check.found
    assert not check.required
    assert bool(check.remedy) is (status != "ok")


def test_doctor_says_that_the_gpu_kernels_were_not_built(monkeypatch):
    import torch

    from splat.cli import doctor

    monkeypatch.setitem(sys.modules, "splat._cuda", None)
    for here, status in ((False, "note"), (True, "missing")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        (check,) = doctor._cuda()
        assert check.status == status
        assert "no CUDA compiler" in check.found
        assert "CUDA toolkit" in check.remedy


def test_doctor_says_what_is_missing_and_fails(splat, monkeypatch):
    """A required package that does not import, and an optional one whose system library is not there."""
    from splat.cli import doctor

    problems = {
        "pycolmap": "ModuleNotFoundError: No module named 'pycolmap'",
        "open3d": "OSError: libusb-1.0.so.0: cannot open shared object file: No such file or directory",
    }
    monkeypatch.setattr(doctor, "_import_problem", problems.get)
    done = splat("doctor")
    assert done.code == 1
    assert "pip install pycolmap" in done.out
    assert "apt-get install libusb-1.0-0" in done.out


@pytest.mark.parametrize("flags", [("--steps", 0), ("--views", 2), ("--preset", "none")])
def test_a_demo_with_wrong_options_makes_nothing(splat, tmp_path, flags):
    done = splat("demo", *flags, "--out", tmp_path / "demo")
    assert done.code == 2
    assert flags[0].strip("-") in done.first
    assert not list(tmp_path.iterdir())
