"""Pairs of a rendering and a photograph for tests of losses."""

from __future__ import annotations

import torch
from torch import Tensor


def images(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A rendering (smooth, noisy and flat parts), a photograph like it, and a mask that keeps most of it."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = 0.5 + 0.4 * torch.sin(x / 9 + torch.arange(3)[:, None, None]) * torch.cos(y / 7)
    image = smooth.permute(1, 2, 0).contiguous() + 0.1 * torch.randn(height, width, 3, generator=generator)
    image[: height // 3, : width // 3] = 0.7
    target = image + 0.1 * torch.randn(height, width, 3, generator=generator)
    mask = (torch.rand(height, width, generator=generator) > 0.3).to(torch.uint8) * 255
    mask[height // 2 :, : width // 2] = 0
    return image, (target.clamp(0, 1) * 255).round().to(torch.uint8), mask
