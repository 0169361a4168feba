"""The image losses in readable torch: the truth that the native kernels are tested against.

Every function works in any floating dtype, on any device, and is differentiable in its first image.
SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004, section III, with the
Gaussian window of that paper applied over zero padding, as 3D Gaussian splatting trains with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from splat.training.constants import SSIM_C1, SSIM_C2, SSIM_SIGMA, SSIM_WINDOW


def gaussian_window(dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """[SSIM_WINDOW] samples of a Gaussian of SSIM_SIGMA pixels that sum to one."""
    x = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=device) - (SSIM_WINDOW - 1) / 2
    weights = torch.exp(-0.5 * (x / SSIM_SIGMA) ** 2)
    return (weights / weights.sum()).to(dtype)


def blur(image: Tensor) -> Tensor:
    """[H, W, C] window means around every pixel; what lies outside the image counts as zero."""
    height, width, channels = image.shape
    window = gaussian_window(image.dtype, image.device)
    planes = image.permute(2, 0, 1).reshape(channels, 1, height, width)
    planes = functional.conv2d(planes, window.view(1, 1, -1, 1), padding=(SSIM_WINDOW // 2, 0))
    planes = functional.conv2d(planes, window.view(1, 1, 1, -1), padding=(0, SSIM_WINDOW // 2))
    return planes.reshape(channels, height, width).permute(1, 2, 0)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """[H, W, C] structural similarity around every pixel of two images [H, W, C] in [0, 1]."""
    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a + b * b) - mean_a**2 - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)


def photometric(
    image: Tensor, target: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM), the mean over kept pixels and channels; see `splat.training.losses`."""
    truth = target.to(image.dtype) / 255
    if mask is None:
        keep = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
    else:
        keep = mask != 0
    seen = torch.where(keep[..., None], image, truth)
    count = 3 * max(int(keep.sum()), 1)
    l1 = (seen - truth).abs().sum() / count
    dissimilarity = ((1 - ssim_map(seen, truth)) * keep[..., None]).sum() / count
    return (1 - ssim_weight) * l1 + ssim_weight * dissimilarity
