"""Image losses and scores: native for float32 on the CPU and on GPUs, torch otherwise.

`splat.training.losses_reference` holds their readable twins. Images are [H, W, 3] in [0, 1], photographs
also as uint8; masks are [H, W] uint8 with 0 where a pixel does not count.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from splat import _native
from splat.training import gpu, losses_reference


def photometric(
    image: Tensor, target: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> Tensor:
    """The training loss (1 - w) L1 + w (1 - SSIM), differentiable in `image`.

    Both terms are means over the kept pixels and their channels. Masked pixels of the rendering are
    replaced by the photograph before windows are taken, so that they neither cost nor help; with no pixel
    kept the loss is zero.

    Args:
        image: [H, W, 3] rendering, float.
        target: [H, W, 3] uint8 photograph.
        mask: [H, W] uint8, 0 = ignore the pixel; or None.
        ssim_weight: w, 0 to 1.

    Returns:
        Scalar of the image's dtype.

    Source: Kerbl et al. 2023, equation 7 (with 1 - SSIM); SSIM by Wang et al. 2004.
    """
    _check(image, target, mask)
    if target.dtype != torch.uint8:
        raise TypeError(f"target must be uint8, got {target.dtype}")
    if image.device.type == "cpu" and image.dtype == torch.float32:
        return _Photometric.apply(image, target, mask, ssim_weight)
    kernels = gpu.kernels_for(image)
    if kernels is not None:
        return gpu.photometric(kernels, image, target, mask, ssim_weight)
    return losses_reference.photometric(image, target, mask, ssim_weight)


class _Photometric(torch.autograd.Function):
    """Value and gradient in one native pass; backward hands out what forward computed."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float) -> Tensor:
        gradient = torch.empty_like(image, memory_format=torch.contiguous_format)
        l1, dissimilarity, kept = _native.photometric(
            image.detach().contiguous(),
            target.contiguous(),
            None if mask is None else mask.contiguous(),
            gradient if ctx.needs_input_grad[0] else None,
            ssim_weight,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(gradient)
        loss = ((1 - ssim_weight) * l1 + ssim_weight * dissimilarity) / (3 * max(kept, 1))
        return image.new_tensor(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # Alone in the sum of losses, as is usual, its factor is one.
        return (gradient if factor == 1 else gradient * factor), None, None, None


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float:
    """Structural similarity, the mean over (kept) pixels and channels.

    Args:
        a: [H, W, 3] float in [0, 1].
        b: [H, W, 3] float in [0, 1], or uint8.
        mask: [H, W] uint8, 0 = ignore the pixel (its neighbours still see it); or None.

    Source: Wang et al. 2004 with an 11 x 11 Gaussian window of 1.5 pixels over zero padding.
    """
    _check(a, b, mask)
    values = losses_reference.ssim_map(_unit(a), _unit(b))
    return float(values.mean() if mask is None else values[mask != 0].mean())


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB over (kept) pixels and channels; infinite for equal images.

    Args:
        a, b: [H, W, 3] float in [0, 1], or uint8.
        mask: [H, W] uint8, 0 = ignore the pixel; or None.
    """
    return decibels(float(squared_error(a, b, mask)))


def squared_error(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference, of which psnr is the logarithm: a float64 scalar on the images' device."""
    _check(a, b, mask)
    squares = (_unit(a) - _unit(b)).square()
    if mask is None:
        return squares.mean()
    kept = (mask != 0)[..., None]
    return torch.where(kept, squares, 0).sum() / (3 * kept.sum())


def decibels(error: float) -> float:
    """PSNR of a mean squared difference of values in [0, 1]."""
    return math.inf if error == 0 else -10 * math.log10(error)


def _unit(image: Tensor) -> Tensor:
    """Float64 values in [0, 1] of a float or uint8 image."""
    return image.double() / 255 if image.dtype == torch.uint8 else image.double()


def _check(image: Tensor, target: Tensor, mask: Tensor | None) -> None:
    if image.dim() != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be [H, W, 3], got {list(image.shape)}")
    if target.shape != image.shape:
        raise ValueError(f"images must be of one shape, got {list(image.shape)} and {list(target.shape)}")
    for name, tensor in (("target", target), ("mask", mask)):
        if tensor is not None and tensor.device != image.device:
            raise ValueError(f"{name} is on {tensor.device}, the image on {image.device}")
    if mask is not None and (mask.shape != image.shape[:2] or mask.dtype != torch.uint8):
        raise ValueError(f"mask must be uint8 {list(image.shape[:2])}, got {mask.dtype} {list(mask.shape)}")
