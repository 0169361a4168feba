"""The training kernels for NVIDIA GPUs (cuda/src/cuda), from tensors: the loss, Adam, density control.

`kernels` is the module that holds them: splat._cuda, or in the tests splat._emulated, the same sources on the
CPU. Everything runs on torch's current stream of the tensors' device and nothing waits for it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


@cache
def _built() -> Any | None:
    try:
        return import_module("splat._cuda")
    except ImportError:
        return None


def kernels_for(*tensors: Tensor) -> Any | None:
    """The kernels, if they take these tensors: float32 and contiguous on one GPU; else None."""
    device = tensors[0].device
    if device.type != "cuda":
        return None
    fits = all(t.device == device and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    return _built() if fits else None


def _where(tensor: Tensor) -> tuple[int, int]:
    """(device, stream) as the kernels take them; the emulation ignores both."""
    if tensor.device.type != "cuda":
        return 0, 0
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _record(guard: Any) -> int:
    """Where the kernels read whether a guard (splat.raster.cuda.Guard) refuses; 0 for none."""
    return 0 if guard is None else guard.record.data_ptr()


def adam_step(
    kernels: Any,
    value: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    lr: float,
    count: int,
    betas: tuple[float, float],
    eps: float,
    head_lr: float | None = None,
) -> None:
    """One step of Adam in place over contiguous float32 tensors of one shape; `count` is from 1.

    With `head_lr` the tensors are [N, K, C], and [:, 0] moves at that rate.
    """
    arrays = (value, gradient, first, second)
    row, head = (1, 0) if head_lr is None else (value[0].numel() if len(value) else 1, value.shape[2])
    rates = (row, head, lr if head_lr is None else head_lr, lr)
    kernels.adam_step(*map(_address, arrays), value.numel(), *rates, count, *betas, eps, *_where(value))


def photometric(
    kernels: Any, image: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float
) -> Tensor:
    """The training loss, differentiable in `image`; see `splat.training.losses.photometric`."""
    return _Photometric.apply(kernels, image, target, mask, ssim_weight)


class _Photometric(torch.autograd.Function):
    """Forward leaves the derivatives by the window means, from which backward makes the gradient: it knows
    its factor only then, and reading the factor earlier would wait for the device."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Any, image: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float
    ) -> Tensor:
        image, target = image.detach().contiguous(), target.contiguous()
        mask = None if mask is None else mask.contiguous()
        height, width, _ = image.shape
        derivatives = image.new_empty(3, height, width, 3) if ctx.needs_input_grad[1] else None
        sums = image.new_empty(kernels.photometric_sums(height, width), dtype=torch.float64)
        loss, inverse = image.new_empty(()), image.new_empty(())
        kernels.photometric_value(
            *map(_address, (image, target, mask)),
            height,
            width,
            ssim_weight,
            *map(_address, (derivatives, sums, loss, inverse)),
            *_where(image),
        )
        ctx.kernels, ctx.ssim_weight = kernels, ssim_weight
        ctx.save_for_backward(image, target, mask, derivatives, inverse)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[None, Tensor, None, None, None]:
        image, target, mask, derivatives, inverse = ctx.saved_tensors
        gradient = torch.empty_like(image)
        ctx.kernels.photometric_gradient(
            *map(_address, (image, target, mask)),
            *image.shape[:2],
            ctx.ssim_weight,
            *map(_address, (derivatives, inverse, factor, gradient)),
            *_where(image),
        )
        return None, gradient, None, None, None


def add_noise_(
    kernels: Any,
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    logit_opacities: Tensor,
    eta: Tensor,
    gain: float | Tensor,
    guard: Any = None,
) -> None:
    """MCMC's noise, in place; see `splat.strategies.kernels.add_noise_`."""
    if not isinstance(gain, Tensor):
        gain = eta.new_full((), gain)
    arrays = (means, quats, log_scales, logit_opacities, eta, gain)
    kernels.mcmc_noise(*map(_address, arrays), len(means), _record(guard), *_where(means))


def relocation(kernels: Any, opacities: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """([N] new opacities, [N] factors of the scales) for `counts` int32; see `splat.strategies.kernels`."""
    new, factor = torch.empty_like(opacities), torch.empty_like(opacities)
    arrays = (opacities, counts, new, factor)
    kernels.mcmc_relocation(*map(_address, arrays), len(opacities), *_where(opacities))
    return new, factor


def accumulate_gradients_(
    kernels: Any,
    sums: Tensor,
    views: Tensor,
    gradient: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    guard: Any = None,
) -> None:
    """The default strategy's statistics, in place; see `splat.strategies.kernels`."""
    arrays = (*map(_address, (sums, views, gradient, radii)), width / 2, height / 2, len(sums))
    kernels.accumulate_gradients(*arrays, _record(guard), *_where(sums))
