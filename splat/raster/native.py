"""The native rasterizer on the CPU (cuda/src/cpu): SIMD, threads, deterministic gradients.

The number of threads is torch's (`torch.set_num_threads`); results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from splat import _native
from splat.core import Camera, Gaussians, UsageError
from splat.core.checks import check_tensor
from splat.core.gaussians import PARAMETERS
from splat.raster.options import RenderOptions, RenderOutput

RATES = ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN")
Moments = Mapping[str, tuple[Tensor, ...]]


class NativeBackend:
    """`render` by the native kernels, float32, on the CPU."""

    name = "cpu"

    def __init__(self) -> None:
        # Memory of finished renders, for the next ones. append and pop are atomic.
        self._free: list[Any] = []

    def deferred(self) -> Deferred:
        """What makes the next step a fused one; see `Deferred`."""
        return Deferred()

    def render(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> RenderOutput:
        request = Request.check(gaussians, camera, options, "cpu")
        inputs = request.inputs(gaussians, camera, options)
        return request.output(_Render.apply(request, _Lease(self._free), options.deferred, *inputs))


class _Lease:
    """Native memory on loan until nothing refers to the render any more."""

    quantized_moments = False

    def __init__(self, free: list[Any]) -> None:
        self._free = free
        try:
            self.raster = free.pop()
        except IndexError:
            self.raster = _native.Raster()

    def __del__(self) -> None:
        self._free.append(self.raster)

    def fused_step(self, request: Request, step: FusedStep, *, differentiated: bool) -> None:
        if not differentiated:
            self.raster.blend_backward(*[None] * 10, request.threads)
        self.raster.fused_step(
            [_array(tensor) for tensor in step.shown],
            [_array(tensor) for tensor in step.values],
            request.degree,
            request.antialiased,
            [_array(tensor) for tensor in step.first],
            [_array(tensor) for tensor in step.second],
            step.rates,
            step.step,
            *step.betas,
            step.eps,
            *step.penalties,
            request.threads,
        )


class Lease(Protocol):
    """What a backend holds of a render until the step is done."""

    quantized_moments: bool

    def fused_step(self, request: Request, step: FusedStep, *, differentiated: bool) -> None:
        """Projection-backward and Adam; without a backward pass before, from gradients of zero."""


@dataclass
class FusedStep:
    """The checked arguments of `Deferred.step`, in the order of PARAMETERS."""

    shown: list[Tensor]
    values: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    rates: list[float]  # of RATES
    step: int
    betas: tuple[float, float]
    eps: float
    penalties: tuple[float, float]  # opacity, scale
    sh_scales: Tensor | None = None  # [N, 2] where the moments are quantized


@dataclass(frozen=True)
class PoseStep:
    """One step of fitting a camera's pose, on the device: exp(xi) world_to_camera, with a row xi for each camera.

    Attributes:
        rows: [views, 6] float32; (translation / extent, rotation vector) in the camera's frame.
        first, second: the rows' moments.
        view: the row of this camera, the only one that is moved.
        extent: unit of the translations.
        rate: learning rate.
        count: of that row's steps, from 1.
        betas, eps: of Adam.
    """

    rows: Tensor
    first: Tensor
    second: Tensor
    view: int
    extent: float
    rate: float
    count: int
    betas: tuple[float, float]
    eps: float


def penalty_weights(penalties: Mapping[str, float]) -> tuple[float, float]:
    """(opacity, scale)"""
    return float(penalties.get("opacity", 0.0)), float(penalties.get("scale", 0.0))


@dataclass
class Request:
    """A checked render call: what the kernels need besides tensors with gradients."""

    device: torch.device
    count: int
    degree: int
    antialiased: bool
    camera: Camera
    needs: frozenset[str]
    statistics: dict[str, Tensor | None]
    threads: int

    @staticmethod
    def check(
        gaussians: Gaussians,
        camera: Camera,
        options: RenderOptions,
        device_type: str,
        *,
        half_sh: bool = False,
    ) -> Request:
        """The kernels compute in float32 on a device of the type; shapes were checked by `render`.

        With `half_sh` they also take harmonics in float16, to draw them; in a Deferred, to train them.
        """
        device = gaussians.device
        if device.type != device_type:
            device = torch.device(device_type)
        for name in PARAMETERS:
            value = getattr(gaussians, name)
            halves = half_sh and name == "sh" and value.dtype == torch.float16 and not value.requires_grad
            check_tensor(
                name,
                value,
                (None,) * value.ndim,
                dtype=torch.float16 if halves else torch.float32,
                device=device,
            )
        if options.features is not None:
            shape = (None,) * options.features.ndim
            check_tensor("options.features", options.features, shape, dtype=torch.float32, device=device)
        count = len(gaussians)
        degree = gaussians.sh_degree
        if options.sh_degree is not None:
            degree = min(degree, options.sh_degree)

        def statistic(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
            return torch.zeros(shape, dtype=dtype, device=device) if name in options.needs else None

        statistics = {
            "ids": statistic("ids", (camera.height, camera.width), torch.int32),
            "radii": statistic("radii", (count,), torch.int32),
            "contribution": statistic("contribution", (count,), torch.float32),
            "means2d_grad": statistic("means2d_grad", (count, 2), torch.float32),
            "absgrad": statistic("absgrad", (count, 2), torch.float32),
        }
        return Request(
            device,
            count,
            degree,
            gaussians.antialiased,
            camera,
            options.needs,
            statistics,
            torch.get_num_threads(),
        )

    def inputs(
        self, gaussians: Gaussians, camera: Camera, options: RenderOptions
    ) -> tuple[Tensor | None, ...]:
        """What autograd sees: the five parameters, a hook, pose, background, features.

        In a deferred render gradients stop at the image plane, so that no parameter is an input; the hook is
        what makes the outputs require grad then.
        """
        tensors = [getattr(gaussians, name) for name in PARAMETERS]
        deferred = options.deferred
        if deferred is not None:
            deferred._claim(self)
            tensors = [tensor.detach() for tensor in tensors]
        hook = torch.zeros((), requires_grad=deferred is not None)
        return *tensors, hook, camera.world_to_camera, options.background, options.features

    def output(self, drawn: tuple[Any, ...]) -> RenderOutput:
        """`drawn` (image, alpha, depth, median depth, features) with the statistics that were asked for."""
        image, alpha, depth, median_depth, features = drawn
        return RenderOutput(
            image=image,
            alpha=alpha,
            depth=depth,
            median_depth=median_depth,
            features=features,
            ids=self.statistics["ids"],
            radii=self.statistics["radii"],
            contribution=self.statistics["contribution"],
            means2d_grad=self.statistics["means2d_grad"],
            means2d_absgrad=self.statistics["absgrad"],
        )


def _array(tensor: Tensor | None) -> Any:
    """The tensor as the kernels take it: a contiguous array that shares its memory where it can."""
    return None if tensor is None else tensor.detach().contiguous().numpy()


def background_gradient(alpha: Tensor, v_image: Tensor | None) -> Tensor | None:
    """[3] what reaches the background of an image [H, W, 3] with `alpha` [H, W]."""
    return None if v_image is None else ((1 - alpha)[..., None] * v_image).sum((0, 1))


def pose_gradient(kernels: Tensor, pose: Tensor) -> Tensor:
    """[4, 4] like `pose`, of the kernels' 12 numbers: the rotation's nine, row by row, and the translation."""
    gradient = torch.zeros(4, 4, device=kernels.device)
    gradient[:3, :3], gradient[:3, 3] = kernels[:9].view(3, 3), kernels[9:]
    return gradient.to(pose.device, pose.dtype)


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, request, lease, deferred, means, quats, log_scales, logits, sh, hook, pose, background, features
    ):
        del hook
        camera, needs = request.camera, request.needs
        height, width = camera.height, camera.width
        parameters = [_array(t) for t in (means, quats, log_scales, logits, sh)]
        image = torch.empty(height, width, 3)
        alpha = torch.empty(height, width)
        depth = torch.empty(height, width) if "depth" in needs else None
        median_depth = torch.empty(height, width) if "median_depth" in needs else None
        channels = 0 if features is None else features.shape[1]
        feature_image = None if features is None else torch.empty(height, width, channels)
        matrix = pose.detach().to(torch.float32).contiguous()
        lease.raster.forward(
            parameters,
            request.degree,
            request.antialiased,
            matrix.numpy(),
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            width,
            height,
            None if background is None else _array(background.to(torch.float32)),
            _array(features) if channels else None,
            image.numpy(),
            alpha.numpy(),
            _array(depth),
            _array(median_depth),
            _array(request.statistics["ids"]),
            _array(feature_image) if channels else None,
            _array(request.statistics["radii"]),
            _array(request.statistics["contribution"]),
            request.threads,
        )
        ctx.request, ctx.lease, ctx.deferred = request, lease, deferred
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means, quats, log_scales, logits, sh, pose, features, alpha, depth)
        if deferred is not None:
            deferred._lease = lease
        return image, alpha, depth, median_depth, feature_image

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v_image, v_alpha, v_depth, v_median_depth, v_features):
        means, quats, log_scales, logits, sh, pose, features, alpha, depth = ctx.saved_tensors
        request, raster = ctx.request, ctx.lease.raster
        wants = ctx.needs_input_grad
        channels = 0 if features is None else features.shape[1]
        if channels == 0:
            v_features = None
        grad_features = torch.zeros_like(features) if wants[11] else None
        means2d, absolute = request.statistics["means2d_grad"], request.statistics["absgrad"]
        for statistic in (means2d, absolute):
            if statistic is not None:
                statistic.zero_()
        raster.blend_backward(
            _array(v_image),
            _array(v_alpha),
            _array(v_depth),
            _array(v_median_depth),
            _array(v_features),
            _array(depth),
            _array(features) if channels else None,
            _array(grad_features) if v_features is not None else None,
            _array(means2d),
            _array(absolute),
            request.threads,
        )
        grad_background = background_gradient(alpha, v_image) if wants[10] else None
        if ctx.deferred is not None:
            ctx.deferred._ready = True
        grads: list[Tensor | None] = [None] * 5
        grad_pose = None
        if any(wants[3:8]) or wants[9]:
            parameters = [t.detach() for t in (means, quats, log_scales, logits, sh)]
            buffers = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in parameters]
            pose12 = torch.zeros(12) if wants[9] else None
            raster.project_backward(
                [_array(t) for t in parameters],
                request.degree,
                request.antialiased,
                [_array(t) for t in buffers],
                _array(pose12),
                request.threads,
            )
            grads = [buffer if want else None for buffer, want in zip(buffers, wants[3:8], strict=True)]
            if pose12 is not None:
                grad_pose = pose_gradient(pose12, pose)
        return None, None, None, *grads, None, grad_pose, grad_background, grad_features


class Deferred:
    """A step whose parameter gradients are never stored.

    Give one to `RenderOptions.deferred`: the outputs then require grad although no parameter does, and
    backward stops at the image plane. `step` goes on from there to updated parameters in one pass. Good for
    one render.
    """

    def __init__(self) -> None:
        # Of a backend on a GPU: what lets it run ahead of the device, how the blend is differentiated (None: as
        # the backend does by default), and the camera that is fitted in the same pass.
        self.guard: Any = None
        self.backward: str | None = None
        self.poses: PoseStep | None = None
        self._request: Request | None = None
        self._lease: Lease | None = None
        self._ready = False

    def _claim(self, request: Request) -> None:
        if self._request is not None:
            raise UsageError("a Deferred is good for one render: make a new one for each")
        self._request = request

    @torch.no_grad()
    def step(
        self,
        gaussians: Gaussians,
        moments: Moments,
        rates: Mapping[str, float],
        *,
        step: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        penalties: Mapping[str, float] | None = None,
        shown: Gaussians | None = None,
    ) -> None:
        """Projection-backward, penalties and dense Adam (as torch.optim.Adam) over all Gaussians, in place.

        Without a backward pass before (nothing reached the outputs), the gradients are zero.

        Args:
            gaussians: the scene to step; contiguous float32.
            moments: name -> (first, second moment), shaped as the parameters. Quantized, where the backend takes
                them: bfloat16, those of sh uint8 with their scales [N, 2] (splat.training.moments).
            rates: learning rates of means, quats, log_scales, logit_opacities, sh0 (band 0), shN (the rest).
            step: count of this step from 1, for the bias correction.
            penalties: "opacity": w adds w mean(sigmoid(logit)); "scale": w adds w mean(exp(log_scale)), of
                `gaussians`.
            shown: the scene that was rendered, unchanged since, where that was not `gaussians`: the gradients
                are taken there and go straight through.
        """
        request, lease = self._request, self._lease
        if request is None or lease is None:
            raise UsageError("Deferred.step before a render: pass it in RenderOptions.deferred")
        if len(gaussians) != request.count:
            raise ValueError(
                f"gaussians: expected the {request.count} that were rendered, got {len(gaussians)}"
            )
        if step < 1:
            raise ValueError(f"step: expected a count from 1, got {step}")
        penalties = penalties or {}
        unknown = set(penalties) - {"opacity", "scale"}
        if unknown:
            raise ValueError(f"penalties: expected opacity or scale, got {sorted(unknown)}")
        values, first, second, rendered = [], [], [], []
        scales = moments["sh"][2] if len(moments["sh"]) == 3 else None
        if scales is not None:
            if not lease.quantized_moments:
                raise UsageError("this backend's fused step takes moments in float32 alone")
            check_tensor("scales", scales, (request.count, 2), dtype=torch.float32, device=request.device)
        shown = gaussians if shown is None else shown
        for name in PARAMETERS:
            value, source = getattr(gaussians, name), getattr(shown, name)
            dtype = stored = torch.float32
            if scales is not None:
                dtype = torch.uint8 if name == "sh" else torch.bfloat16
                stored = value.dtype if name == "sh" and value.dtype == torch.float16 else stored
            check_tensor(f"shown {name}", source, tuple(value.shape), dtype=stored, device=request.device)
            rendered.append(source.detach().contiguous())
            for kind, tensor, expected in (
                ("", value, stored),
                ("exp_avg of ", moments[name][0], dtype),
                ("exp_avg_sq of ", moments[name][1], dtype),
            ):
                check_tensor(kind + name, tensor, tuple(value.shape), dtype=expected, device=request.device)
                if not tensor.is_contiguous():
                    raise ValueError(f"{kind}{name}: expected a contiguous tensor")
            values.append(value.detach())
            first.append(moments[name][0].detach())
            second.append(moments[name][1].detach())
        arguments = FusedStep(
            rendered,
            values,
            first,
            second,
            [float(rates[name]) for name in RATES],
            step,
            betas,
            eps,
            penalty_weights(penalties),
            scales,
        )
        lease.fused_step(request, arguments, differentiated=self._ready)
        self._lease = None
