"""The native rasterizer on an NVIDIA GPU (cuda/src/cuda).

Every call enqueues on torch's current stream of the tensors' device and returns. A render waits for the device
once, for the number of splats and (splat, tile) pairs, so that there is room for all of them. One of a `Guard`'s
steps does not: there is room for an eighth more than earlier renders needed, and where that was too little the step
and those after it change nothing until they are taken again (cuda/src/cuda/guard.h).
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from splat.core import Camera, DeviceError, Gaussians
from splat.raster.guard import CudaGraph, DeviceClock, Guard, Place, Recorders, place_of
from splat.raster.native import (
    Deferred,
    FusedStep,
    PoseStep,
    Request,
    background_gradient,
    pose_gradient,
)
from splat.raster.options import RenderOptions, RenderOutput

Backward = Literal["pixels", "splats"]
BACKWARDS: tuple[Backward, ...] = ("pixels", "splats")
_CHECKPOINT_SHARE = 0.25  # of a GPU's free memory, for the checkpoints of the backward pass by splats


@dataclass(frozen=True)
class Way:
    """One of the ways in which a guarded step can be taken, which differ in speed and rounding alone."""

    backward: Backward
    captured: bool


class CudaBackend:
    """`render` by the GPU kernels, float32.

    Args:
        kernels: the module that holds them; None for splat._cuda. The tests give splat._emulated, which takes
            tensors on the CPU.
        backward: how the blend is differentiated: by "pixels", a thread each, or by "splats", a lane each with
            checkpoints of the forward pass (not with features). Their results differ by rounding. None: by
            pixels, and in training by what is measured to be faster there.
        captured: whether training replays steps as a graph where it can; None: if that is measured to be faster.
        recorder: makes that graph.

    Attributes:
        ways: in which a guarded step can be taken; where there are several, the clock decides.

    Raises:
        DeviceError: the kernels were not built, or there is no GPU.
    """

    name = "cuda"
    quantized_moments = True
    half_sh = True
    fits_poses = True

    def __init__(
        self,
        kernels: ModuleType | None = None,
        *,
        backward: Backward | None = None,
        captured: bool | None = None,
        recorder: Recorders = CudaGraph,
    ) -> None:
        self._backward: Backward = backward or "pixels"
        backwards = BACKWARDS if backward is None else (backward,)
        # What is new to the device is tried last: by then all kernels of a step are loaded.
        captures = (False, True) if captured is None else (captured,)
        self.ways = tuple(Way(b, c) for c, b in product(captures, backwards))
        self._recorder = recorder
        self._kernels = kernels if kernels is not None else _built()
        self._device_type = "cpu" if self._kernels.ARCHITECTURES == "emulated" else "cuda"
        # State of finished renders, for the next ones on the same stream. append and pop are atomic.
        self._free: defaultdict[Place, list[_State]] = defaultdict(list)

    def deferred(self, guard: Guard | None = None) -> Deferred:
        """What makes the next step a fused one; see `splat.raster.native.Deferred`.

        With a `guard` nothing waits for the device, and the step may turn out to be refused.
        """
        deferred = Deferred()
        deferred.guard = guard
        return deferred

    def guard(self, device: torch.device) -> Guard:
        """What lets the steps of one run go ahead of the device."""
        return Guard(self._kernels, device, self._recorder)

    def has_room(self, way: Way, guard: Guard, camera: Camera) -> bool:
        """Whether the memory that a way takes beyond the others is there, for steps like those of `guard` so far."""
        if way.backward == "pixels" or self._device_type != "cuda":
            return True
        needed = self._kernels.checkpoint_bytes(guard.native.instances, camera.width, camera.height)
        return needed <= _CHECKPOINT_SHARE * torch.cuda.mem_get_info(guard.record.device)[0]

    def clock(self, device: torch.device) -> DeviceClock:
        """What tells which way is the fastest."""
        return DeviceClock(device)

    def render(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> RenderOutput:
        request = Request.check(gaussians, camera, options, self._device_type, half_sh=True)
        inputs = request.inputs(gaussians, camera, options)
        lease = Lease(self._kernels, self._free, request.device, options.deferred, self._backward)
        return request.output(_Render.apply(request, lease, options.deferred, *inputs))


def _built() -> ModuleType:
    try:
        from splat import _cuda
    except ImportError as error:
        raise DeviceError(
            "the GPU kernels are not in this installation: build splat where nvcc is at hand (splat doctor "
            f"says more), or render on the CPU\n{error}"
        ) from error
    if not torch.cuda.is_available():
        raise DeviceError("no NVIDIA GPU that PyTorch can use: render on the CPU (splat doctor says more)")
    return _cuda


class _State:
    """A native Raster with the memory that it asks for, which is torch's."""

    def __init__(self, kernels: ModuleType, device: torch.device) -> None:
        memory: dict[int, Tensor] = {}

        def allocate(slot: int, size: int) -> int:
            memory.pop(slot, None)  # given back first, as it may be what is needed
            if size == 0:
                return 0
            memory[slot] = torch.empty(size, dtype=torch.uint8, device=device)
            return memory[slot].data_ptr()

        self.raster = kernels.Raster(allocate)


class Lease:
    """State on loan until nothing refers to the render any more.

    Attributes:
        place: where the render runs.
        home: where its memory is at home, and steps that replay it run: another stream, if this is a capture.
    """

    quantized_moments = True

    def __init__(
        self,
        kernels: ModuleType,
        free: defaultdict[Place, list[_State]],
        device: torch.device,
        deferred: Deferred | None,
        backward: Backward,
    ) -> None:
        self.kernels = kernels
        self.guard: Guard | None = None if deferred is None else deferred.guard
        self.poses: PoseStep | None = None if deferred is None else deferred.poses
        self.by_splats = ((deferred and deferred.backward) or backward) == "splats"
        self.place = self.home = place_of(device)
        if self.guard is not None and self.guard.home is not None:
            self.home, self.guard.lease = self.guard.home, self
        pool = free[self.home]
        try:
            state = pool.pop()
        except IndexError:
            state = _State(kernels, device)
        self.raster = state.raster
        weakref.finalize(self, pool.append, state)

    def scene(self, request: Request, tensors: list[Tensor]) -> Any:
        """The native view of the parameters, which must stay alive while it is used."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        return self.kernels.Scene(
            addresses,
            request.count,
            tensors[4].shape[1],
            request.degree,
            request.antialiased,
            tensors[4].dtype == torch.float16,
        )

    @property
    def _captured(self) -> bool:
        """Whether this render is being captured: then view and rates come with every replay."""
        return self.guard is not None and self.guard.lease is self

    def set_view(self, request: Request, pose: Tensor) -> None:
        """What is to be drawn, to the device."""
        if not self._captured:
            self.send_view(request.camera, pose, self.place)
            if self.poses is not None:
                self.send_rates(self.kernels.Rates(), self.poses, self.place)
        if self.poses is not None:
            self.raster.refine_view(self.poses.rows.data_ptr(), *self.place)

    def send_view(self, camera: Camera, pose: Tensor, place: Place) -> None:
        c, matrix = camera, pose.detach().to("cpu", torch.float32).flatten().tolist()
        self.raster.set_view(self.kernels.View(matrix, c.fx, c.fy, c.cx, c.cy, c.width, c.height), *place)

    def send_rates(self, rates: Any, poses: PoseStep | None, place: Place) -> None:
        moved = self.kernels.PoseRates()
        if poses is not None:
            moved = self.kernels.PoseRates(
                poses.view, poses.extent, poses.rate, poses.count, *poses.betas, poses.eps
            )
        self.raster.set_rates(rates, moved, *place)

    def fused_step(self, request: Request, step: FusedStep, *, differentiated: bool) -> None:
        if not differentiated:
            self.raster.blend_backward(*[0] * 12, *self.place)
        if not self._captured:
            rates = self.kernels.Rates(
                step.rates, step.step, *step.betas, step.eps, *step.penalties, request.count
            )
            self.send_rates(rates, self.poses, self.place)
        poses = self.poses
        fitted = (
            [0, 0, 0] if poses is None else [t.data_ptr() for t in (poses.rows, poses.first, poses.second)]
        )
        self.raster.fused_step(
            self.scene(request, step.shown),
            [tensor.data_ptr() for tensor in step.values],
            [tensor.data_ptr() for tensor in step.first],
            [tensor.data_ptr() for tensor in step.second],
            _address(step.sh_scales),
            fitted,
            *self.place,
        )


def _address(tensor: Tensor | None) -> int:
    """Of a contiguous tensor; 0 for what is not wanted."""
    return 0 if tensor is None else tensor.data_ptr()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().contiguous()


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, request, lease, deferred, means, quats, log_scales, logits, sh, hook, pose, background, features
    ):
        del hook
        camera, needs, device = request.camera, request.needs, request.device
        height, width = camera.height, camera.width

        def picture(*shape: int) -> Tensor:
            return torch.empty(*shape, device=device)

        parameters = [t.detach().contiguous() for t in (means, quats, log_scales, logits, sh)]
        image, alpha = picture(height, width, 3), picture(height, width)
        depth = picture(height, width) if "depth" in needs else None
        median_depth = picture(height, width) if "median_depth" in needs else None
        channels = 0 if features is None else features.shape[1]
        feature_image = None if features is None else picture(height, width, channels)
        colour = _contiguous(None if background is None else background.to(device, torch.float32))
        flat = _contiguous(features)
        lease.set_view(request, pose)
        lease.raster.forward(
            lease.scene(request, parameters),
            width,
            height,
            _address(colour),
            _address(flat),
            channels,
            lease.by_splats,
            image.data_ptr(),
            alpha.data_ptr(),
            _address(depth),
            _address(median_depth),
            _address(request.statistics["ids"]),
            _address(feature_image),
            _address(request.statistics["radii"]),
            _address(request.statistics["contribution"]),
            None if lease.guard is None else lease.guard.native,
            *lease.place,
        )
        ctx.request, ctx.lease, ctx.deferred, ctx.colour = request, lease, deferred, colour
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means, quats, log_scales, logits, sh, pose, features, image, alpha, depth)
        if deferred is not None:
            deferred._lease = lease
        return image, alpha, depth, median_depth, feature_image

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v_image, v_alpha, v_depth, v_median_depth, v_features):
        means, quats, log_scales, logits, sh, pose, features, image, alpha, depth = ctx.saved_tensors
        request, lease, wants = ctx.request, ctx.lease, ctx.needs_input_grad
        if features is None or features.shape[1] == 0:
            v_features = None
        grad_features = (
            torch.zeros_like(features, memory_format=torch.contiguous_format) if wants[11] else None
        )
        gradients = [_contiguous(v) for v in (v_image, v_alpha, v_depth, v_median_depth, v_features)]
        flat = _contiguous(features)
        lease.raster.blend_backward(
            *[_address(v) for v in gradients],
            _address(ctx.colour),
            _address(image),
            _address(depth),
            _address(flat),
            _address(grad_features),
            _address(request.statistics["means2d_grad"]),
            _address(request.statistics["absgrad"]),
            *lease.place,
        )
        grad_background = background_gradient(alpha, v_image) if wants[10] else None
        if ctx.deferred is not None:
            ctx.deferred._ready = True
        grads: list[Tensor | None] = [None] * 5
        grad_pose = None
        if any(wants[3:8]) or wants[9]:
            parameters = [t.detach().contiguous() for t in (means, quats, log_scales, logits, sh)]
            buffers = [torch.empty_like(t) for t in parameters]
            pose12 = torch.empty(12, device=request.device) if wants[9] else None
            lease.raster.project_backward(
                lease.scene(request, parameters),
                [t.data_ptr() for t in buffers],
                _address(pose12),
                *lease.place,
            )
            grads = [buffer if want else None for buffer, want in zip(buffers, wants[3:8], strict=True)]
            if pose12 is not None:
                grad_pose = pose_gradient(pose12, pose)
        return None, None, None, *grads, None, grad_pose, grad_background, grad_features
