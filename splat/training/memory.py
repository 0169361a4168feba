"""How much memory there is, how many Gaussians fit, and what running out looks like."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from splat.training import moments

# Of everything that is kept per Gaussian, as an edit gathers the rows.
_COPIES = 2
# Means, quaternion, scales, opacity; and projected splat, statistics, tile instances.
_GEOMETRY_FLOATS = 11
_TRANSIENT_BYTES = 512
# Share of the free memory that the Gaussians may take; the rest is for photographs and images.
_SHARE = 0.6


def available(device: torch.device) -> int:
    """Bytes that this process may still take on `device`; the control group's limit counts too."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_free_of_machine(), *_free_of_control_group()]
    return min(limits)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: the peak, in bytes


def bytes_per_gaussian(coefficients: int, kind: moments.Kind = "full") -> int:
    """Bytes that one Gaussian with that many harmonic coefficients takes in training."""
    state = 4 * (_GEOMETRY_FLOATS + 3 * coefficients) + moments.bytes_per_gaussian(coefficients, kind)
    return _COPIES * state + _TRANSIENT_BYTES


def cap_from_memory(device: torch.device, coefficients: int, kind: moments.Kind = "full") -> int:
    """Most Gaussians that fit into the memory that is free now; at least 1000."""
    return max(1000, int(_SHARE * available(device)) // bytes_per_gaussian(coefficients, kind))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _free_of_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _free_of_windows()
    # macOS does not tell the free memory without a tool: half of what is installed is a safe guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _free_of_windows() -> int:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "tp", "fp", "tv", "fv", "fe")),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.free)


def _free_of_control_group(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """[bytes] left under the limit of the process's control group, version 2 or 1; [] without a limit."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = (root / limit_name).read_text().strip(), (root / usage_name).read_text().strip()
        except OSError:
            continue
        if limit.isdigit() and int(limit) < 1 << 60:
            return [max(0, int(limit) - int(usage))]
    return []
