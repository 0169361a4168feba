"""Time, memory and traffic of a function on a GPU, for gpu.py. On the CPU (a rehearsal) the clock alone works."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Protocol

import torch

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def milliseconds(run: Callable[[], None], device: torch.device) -> float:
    """Time that `run` takes on the device, by events on its stream; on the CPU by the clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def compare(
    contestants: Mapping[str, Callable[[], None]],
    device: torch.device,
    *,
    repeats: int,
    blocks: int,
    warm_up: int,
) -> dict[str, float]:
    """Milliseconds a call of each: the median of `blocks` means over `repeats` calls.

    The contestants take turns, block by block, so that clocks and temperature are alike for all.
    """
    for run in contestants.values():
        for _ in range(warm_up):
            run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(blocks):
        for name, run in contestants.items():

            def block(run: Callable[[], None] = run) -> None:
                for _ in range(repeats):
                    run()

            times[name].append(milliseconds(block, device) / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True)
class Traffic:
    """What a step asks of the device, per step.

    Attributes:
        launches: kernels.
        copies: copies and fills of memory.
        waits: calls in which the host waits for the device.
        allocations: pieces of memory taken from the driver; None where that is not known.
        milliseconds: kernel time by the names of `profile`'s patterns.
    """

    launches: float
    copies: float
    waits: float
    allocations: float | None
    milliseconds: dict[str, float]

    def to_json(self) -> dict:
        return asdict(self)


def profile(
    run: Callable[[], None], device: torch.device, patterns: Mapping[str, str], *, repeats: int
) -> Traffic:
    """Traffic of `run` on a GPU; `patterns` are regular expressions of kernel names."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, record_function

    run()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_stats(device).get("num_device_alloc", 0)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        with record_function("measured"):
            for _ in range(repeats):
                run()
        torch.cuda.synchronize(device)
    taken = torch.cuda.memory_stats(device).get("num_device_alloc", 0) - before
    events = list(profiler.events())
    span = next(e.time_range for e in events if e.name == "measured" and e.device_type == DeviceType.CPU)
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and e.name != "measured"]
    kernels = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    # The wait that ends the measurement lies behind the span.
    waits = [e for e in events if e.name in WAITS and span.start <= e.time_range.start <= span.end]
    return Traffic(
        launches=len(kernels) / repeats,
        copies=(len(on_device) - len(kernels)) / repeats,
        waits=len(waits) / repeats,
        allocations=taken / repeats,
        milliseconds={
            name: sum(e.time_range.elapsed_us() for e in kernels if re.search(pattern, e.name))
            / 1e3
            / repeats
            for name, pattern in patterns.items()
        },
    )


def tallied(run: Callable[[], None], kernels: ModuleType, *, repeats: int) -> Traffic:
    """Traffic of our kernels alone, under emulation."""
    before = kernels.tally()
    for _ in range(repeats):
        run()
    spent = {name: (value - before[name]) / repeats for name, value in kernels.tally().items()}
    return Traffic(spent["launches"], spent["fills"] + spent["messages"], spent["waits"], None, {})


class Contestant(Protocol):
    """Something that trains."""

    def step(self) -> None: ...

    def state(self) -> list[torch.Tensor]: ...


def memory(make: Callable[[], Contestant], device: torch.device, *, steps: int) -> dict[str, int | None]:
    """Bytes that a contestant takes above what is there already; without a GPU only its state is known.

    Returns:
        "state": parameters and moments; "held": in use between two steps; "peak": the most in use at a time;
        "driver": taken from the driver and kept.
    """
    if device.type != "cuda":
        contestant = make()
        contestant.step()
        state = sum(t.nbytes for t in contestant.state())
        return {"state": state, "held": None, "peak": None, "driver": None}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.synchronize(device)
    free, _ = torch.cuda.mem_get_info(device)
    start = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    contestant = make()
    for _ in range(steps):
        contestant.step()
    torch.cuda.synchronize(device)
    state = sum(t.nbytes for t in contestant.state())
    held = torch.cuda.memory_allocated(device) - start
    peak = torch.cuda.max_memory_allocated(device) - start
    taken = free - torch.cuda.mem_get_info(device)[0]
    return {"state": state, "held": held, "peak": peak, "driver": taken}
