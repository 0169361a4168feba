"""`splat doctor`: what this machine can do, and what to install."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from splat.cli.command import Common, parse, print_json, size

Status = Literal["ok", "note", "missing", "broken"]


@dataclass
class Doctor(Common):
    """Tell what this machine can do for Splat, and what to install where something is missing.

    Exits with 0 if training, rendering and export work here, and with 1 if not; what is merely optional
    does not count.

    Examples:
      splat doctor
      splat doctor --json | jq '.checks[] | select(.status != "ok")'
    """

    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True)
class Check:
    """One line of the report; `remedy` is a command or an instruction where something can be improved."""

    name: str
    status: Status
    found: str
    remedy: str = ""
    required: bool = False


def main(argv: list[str]) -> int:
    args = parse(Doctor, "doctor", argv)
    checks = list(examine())
    sound = not any(c.required and c.status in ("missing", "broken") for c in checks)
    if args.json:
        print_json({"ok": sound, "checks": [asdict(c) for c in checks]})
        return 0 if sound else 1
    marks = {"ok": "ok", "note": "--", "missing": "??", "broken": "!!"}
    width = max(len(c.name) for c in checks)
    for check in checks:
        print(f" {marks[check.status]}  {check.name:<{width}}  {check.found}")
        if check.remedy:
            print(f"     {'':<{width}}  -> {check.remedy}")
    print()
    print(
        "Splat works on this machine."
        if sound
        else "Splat cannot train here yet: see the lines marked !! or ??"
    )
    return 0 if sound else 1


def examine() -> Iterator[Check]:
    """Every check, in the order of the report. None of them raises."""
    for check in (_splat, _python, _system, _torch, _native, _cuda, _gpu, _memory, _disk, _ffmpeg):
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.lstrip("_")
            yield Check(name, "broken", f"{type(error).__name__}: {error}", "splat doctor --debug", True)
    yield from _packages()


def _splat() -> Iterator[Check]:
    import splat

    yield Check("splat", "ok", f"{splat.__version__} in {Path(splat.__file__).parent}")


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})", required=True)


def _system() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(
        "machine", "ok", f"{platform.system()} {platform.machine()}, {usable} cores usable, {_cpu_name()}"
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def _torch() -> Iterator[Check]:
    try:
        import torch
    except ImportError as error:
        yield Check("torch", "missing", str(error), "pip install torch (pytorch.org has the builds)", True)
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Check(
        "torch", "ok", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads", required=True
    )


def _native() -> Iterator[Check]:
    try:
        from splat import _native
    except ImportError as error:
        remedy = "install a C++ compiler, then: pip install --force-reinstall --no-deps splat (or make test)"
        yield Check("native module", "missing", str(error), remedy, True)
        return
    built = metadata.version("splat") if _installed("splat") else "unknown"
    found = f"{_native.isa()} kernels, {Path(_native.__file__).name}, built for splat {built}"
    yield Check("native module", "ok", found, required=True)


def _cuda() -> Iterator[Check]:
    """The GPU kernels: whether they were built, for what, and whether that is what is here."""
    import torch

    name = "cuda kernels"
    try:
        kernels = import_module("splat._cuda")
    except ModuleNotFoundError:
        found = "not built: there was no CUDA compiler (nvcc) when splat was installed"
        remedy = (
            "install the CUDA toolkit, then: pip install --force-reinstall --no-deps splat (or make test)"
        )
        yield Check(name, "missing" if torch.cuda.is_available() else "note", found, remedy)
        return
    built = f"{_architectures(kernels.ARCHITECTURES)}, CUDA {kernels.CUDART // 1000}.{kernels.CUDART % 1000 // 10}"
    if not torch.cuda.is_available():
        yield Check(name, "ok", f"built for {built}; no GPU here to run them")
        return
    problem = kernels.device_problem()
    if problem:
        remedy = "update the NVIDIA driver, or build splat with the CUDA toolkit of the driver's version"
        yield Check(name, "broken", f"built for {built}, but the driver says: {problem}", remedy)
        return
    capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    lacking = [f"{a}.{b}" for a, b in sorted(capabilities) if not covers(kernels.ARCHITECTURES, a, b)]
    if lacking:
        found = f"built for {built}; a GPU here is of compute {', '.join(lacking)}"
        yield Check(name, "missing", found, "build splat on this machine: make clean test")
    else:
        yield Check(name, "ok", f"built for {built}")


# CMake's name of an architecture: 90 (machine code and PTX), 90-real, 90-virtual, 90a (of that chip alone).
_ARCHITECTURE = re.compile(r"(\d+)(\d)([a-z]?)(-real|-virtual)?")


def _architectures(names: str) -> str:
    """sm_90 of CMake's 90-real, PTX 90 of 90-virtual, and both of 90."""
    words = []
    for name in names.split():
        number = name.split("-")[0]
        if not _ARCHITECTURE.fullmatch(name):
            words.append(name)  # native, all, all-major
            continue
        if not name.endswith("-virtual"):
            words.append(f"sm_{number}")
        if not name.endswith("-real"):
            words.append(f"PTX {number}")
    return ", ".join(words)


def covers(names: str, major: int, minor: int) -> bool:
    """Whether kernels built for `names` (CMake's, by spaces) run on a GPU of compute `major`.`minor`.

    Machine code runs on its own generation from its own revision on, PTX on everything that came later,
    either with a letter on its own chip alone. Of native, all and all-major it is taken for granted.
    """
    for name in names.split():
        match = _ARCHITECTURE.fullmatch(name)
        if not match:
            return True
        built, kind = (int(match[1]), int(match[2])), match[4]
        if match[3]:
            fits = built == (major, minor)
        elif kind == "-real":
            fits = built[0] == major and built[1] <= minor
        else:
            fits = built <= (major, minor)
        if fits:
            return True
    return False


def _gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            yield Check(f"gpu {i}", "ok", f"{p.name}, {size(p.total_memory)}, compute {p.major}.{p.minor}")
    elif shutil.which("nvidia-smi"):
        found = "an NVIDIA driver is installed, but torch cannot use it"
        yield Check(
            "gpu", "note", found, "install the CUDA build of torch: pip install --force-reinstall torch"
        )
    else:
        yield Check("gpu", "note", "no NVIDIA GPU; the CPU is used (preset cpu is made for it)")


def _memory() -> Iterator[Check]:
    info = Path("/proc/meminfo")
    if not info.exists():
        yield Check("memory", "note", "unknown on this system")
        return
    values = {k: int(v.split()[0]) * 1024 for k, v in (x.split(":") for x in info.read_text().splitlines())}
    free, total = values["MemAvailable"], values["MemTotal"]
    status: Status = "ok" if free > 2e9 else "note"
    remedy = "" if status == "ok" else "close other programs, or train with a larger --downscale"
    yield Check("memory", status, f"{size(free)} free of {size(total)}", remedy)


def _disk() -> Iterator[Check]:
    usage = shutil.disk_usage(".")
    status: Status = "ok" if usage.free > 2e9 else "note"
    remedy = "" if status == "ok" else "free some space, or keep runs elsewhere with --out"
    yield Check("disk", status, f"{size(usage.free)} free in {Path.cwd()}", remedy)


def _ffmpeg() -> Iterator[Check]:
    try:
        import imageio_ffmpeg

        yield Check("ffmpeg", "ok", imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        yield Check("ffmpeg", "missing", str(error), "pip install imageio-ffmpeg (for videos: splat render)")


def _packages() -> Iterator[Check]:
    """Packages beside torch: what each is for, whether it loads, how to get it."""
    libusb = (
        "install the system library libusb-1.0 (Debian, Ubuntu: apt-get install libusb-1.0-0; "
        "Fedora: dnf install libusb1; macOS: brew install libusb)"
    )
    table: list[tuple[str, str, str, bool, Callable[[str], str]]] = [
        ("pycolmap", "reads COLMAP datasets", "pip install pycolmap", True, lambda _: ""),
        ("PIL", "reads photographs", "pip install pillow", True, lambda _: ""),
        ("imageio", "writes videos", "pip install imageio imageio-ffmpeg", False, lambda _: ""),
        ("viser", "the viewer in the browser", "pip install viser", False, lambda _: ""),
        (
            "open3d",
            "point cloud tools",
            "pip install open3d-cpu (open3d off Linux x86)",
            False,
            lambda e: libusb if "usb" in e else "",
        ),
        ("gsplat", "a second rasterizer on NVIDIA GPUs", "pip install gsplat", False, lambda _: ""),
        ("tensorboard", "curves of a run", "pip install 'splat[tensorboard]'", False, lambda _: ""),
        ("lpips", "the LPIPS score", "pip install 'splat[lpips]'", False, lambda _: ""),
    ]
    for module, purpose, install, required, diagnose in table:
        problem = _import_problem(module)
        if problem is None:
            yield Check(module, "ok", f"{_version_of(module)}: {purpose}", required=required)
        elif "No module named" in problem:
            status: Status = "missing" if required else "note"
            yield Check(module, status, f"not installed: {purpose}", install, required)
        else:
            remedy = diagnose(problem) or f"reinstall it: {install}"
            yield Check(module, "broken", f"does not load: {problem}", remedy, required)


def _import_problem(module: str) -> str | None:
    """Why a module cannot be imported, or None. In a process of its own: a broken wheel may abort it."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "the import took more than two minutes"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the import ended with status {done.returncode}"


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _version_of(module: str) -> str:
    for distribution in {"PIL": ("pillow",), "open3d": ("open3d", "open3d-cpu")}.get(module, (module,)):
        if _installed(distribution):
            return metadata.version(distribution)
    return "installed"
