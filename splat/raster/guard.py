"""Steps of the GPU backend that the host takes ahead of the device, and their replay as a graph.

See cuda/src/cuda/guard.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.raster.native import RATES, PoseStep, penalty_weights

# A device and a stream on it.
Place = tuple[int, int]


class Captured(Protocol):
    """A render whose step is captured (splat.raster.cuda.Lease): it holds the memory that the graph's kernels work in,
    and takes what is new in a replay to the device."""

    kernels: ModuleType
    home: Place

    def send_view(self, camera: Camera, pose: Tensor, place: Place) -> None: ...

    def send_rates(self, rates: Any, poses: PoseStep | None, place: Place) -> None: ...


def place_of(device: torch.device) -> Place:
    """(device, stream) as the kernels take them; the emulation ignores both."""
    if device.type != "cuda":
        return 0, 0
    index = torch.cuda.current_device() if device.index is None else device.index
    return index, torch.cuda.current_stream(device).cuda_stream


class Guard:
    """Steps that are taken without waiting for the device.

    Once a step was refused for want of room, so are all that follow, until `resume`: whoever took them takes
    them again from step `taken` on, counted from the first one of this guard.

    Attributes:
        home: where the steps run; a capture borrows another stream.
        lease: of the render that is being captured.
    """

    def __init__(self, kernels: ModuleType, device: torch.device, recorder: Recorders) -> None:
        self._device = device
        self._recorder = recorder
        self.record = torch.zeros(kernels.RECORD_BYTES, dtype=torch.uint8, device=device)
        self.native = kernels.Guard(self.record.data_ptr())
        self.home: Place | None = None
        self.lease: Captured | None = None

    @property
    def taken(self) -> int:
        """Steps that the device is known to have taken, or to have had room for."""
        return self.native.taken

    @property
    def refused(self) -> bool:
        """Whether the step after those is known to have been refused."""
        return self.native.refused

    def listen(self) -> None:
        """Hear what has arrived from the device; never waits."""
        self.native.listen()

    def settle(self) -> None:
        """Wait for the device, and hear all."""
        self.native.settle(*place_of(self._device))

    def resume(self) -> None:
        """After a refusal: the steps that follow count again."""
        self.native.resume(*place_of(self._device))

    def capture(self, work: Callable[[], Any], generator: torch.Generator) -> StepGraph:
        """A graph of what `work` enqueues, which is not done yet: one guarded step with a Deferred.

        What it draws random numbers with is `generator`. Every step of its kind must have been taken once, so
        that its kernels are loaded and its memory is there.

        Raises:
            RuntimeError: something in it cannot be captured.
        """
        graph = self._recorder(self._device, generator)
        with self._capturing():
            result = graph.capture(work)
            assert self.lease is not None
            return StepGraph(self, graph, self.lease, result)

    @contextmanager
    def _capturing(self) -> Iterator[None]:
        self.home, self.native.capturing = place_of(self._device), True
        try:
            yield
        finally:
            self.home, self.native.capturing, self.lease = None, False, None


class StepGraph:
    """A guarded step that can be replayed: with the camera, rates and random numbers of another one.

    All else is as it was captured: tensors keep their places, and what is new in them is copied there before.

    Attributes:
        result: what the captured work returned; its tensors have new values after every replay.
    """

    def __init__(self, guard: Guard, graph: Recorder, lease: Captured, result: Any) -> None:
        self._guard, self._graph, self._lease, self.result = guard, graph, lease, result

    def deferred(self, camera: Camera, poses: PoseStep | None) -> ReplayedStep:
        """In the place of the Deferred of a render of `camera`."""
        return ReplayedStep(self._lease, camera, poses)

    def replay(self) -> None:
        """The step, on torch's current stream; after `ReplayedStep.step`."""
        self._graph.replay()
        self._guard.native.send(*self._lease.home)


class ReplayedStep:
    """What a Deferred is to a step, to one that is replayed."""

    def __init__(self, lease: Captured, camera: Camera, poses: PoseStep | None) -> None:
        self._lease, self._camera, self._poses = lease, camera, poses

    def step(
        self,
        gaussians: Gaussians,
        moments: Any,
        rates: Mapping[str, float],
        *,
        step: int,
        betas: tuple[float, float],
        eps: float,
        penalties: Mapping[str, float],
        shown: Gaussians,
    ) -> None:
        """Send what is new in this step to the device; arguments as in `Deferred.step`."""
        del moments, shown  # where they were
        kernels, lease = self._lease.kernels, self._lease
        values = [float(rates[name]) for name in RATES]
        count = len(gaussians)
        lease.send_view(self._camera, self._camera.world_to_camera, lease.home)
        new = kernels.Rates(values, step, *betas, eps, *penalty_weights(penalties), count)
        lease.send_rates(new, self._poses, lease.home)


class DeviceClock:
    """Events on torch's current stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """A point, behind all that was enqueued so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def milliseconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float | None:
        """Between two points; None while the device has not got there."""
        return begin.elapsed_time(end) if end.query() else None


class Recorder(Protocol):
    """A graph of a device."""

    def capture(self, work: Callable[[], Any]) -> Any:
        """Record what `work` enqueues; returns what it returns."""

    def replay(self) -> None:
        """Enqueue it."""


Recorders = Callable[[torch.device, torch.Generator], Recorder]


class CudaGraph:
    """A Recorder on a GPU."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        # Torch before 2.4 knows only its own generator, and says so at the capture.
        if hasattr(self._graph, "register_generator_state"):
            self._graph.register_generator_state(generator)

    def capture(self, work: Callable[[], Any]) -> Any:
        home = torch.cuda.current_stream(self._device)
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(home)
        with torch.cuda.stream(stream):
            # Other threads (photographs, viewers) may use the device meanwhile.
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = work()
            except BaseException:
                self._abandon()
                raise
            self._graph.capture_end()
        home.wait_stream(stream)
        return result

    def _abandon(self) -> None:
        with suppress(RuntimeError):  # what broke the capture is the error to report
            self._graph.capture_end()

    def replay(self) -> None:
        with torch.cuda.device(self._device):
            self._graph.replay()
