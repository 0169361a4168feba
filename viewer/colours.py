"""Numbers as colours."""

from __future__ import annotations

import torch
from torch import Tensor

# Polynomial of degree 5 that fits the turbo colour map (A. Mikhailov, Google AI blog, 2019; the fit is
# R. Du's, Apache-2.0). Rows are powers of x, columns red, green, blue.
_TURBO = (
    (0.13572138, 0.09140261, 0.10667330),
    (4.61539260, 2.19418839, 12.64194608),
    (-42.66032258, 4.84296658, -60.58204836),
    (132.13108234, -14.18503333, 110.36276771),
    (-152.94239396, 4.27729857, -89.90310912),
    (59.28637943, 2.82956604, 27.34824973),
)


def turbo(values: Tensor) -> Tensor:
    """[..., 3] colours of values in [0, 1], blue to red; values outside are clamped."""
    x = values.clamp(0, 1)[..., None]
    colour = torch.zeros(*values.shape, 3, dtype=values.dtype, device=values.device)
    for row in reversed(_TURBO):
        colour = colour * x + torch.tensor(row, dtype=values.dtype, device=values.device)
    return colour.clamp(0, 1)


def stretched(values: Tensor, where: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """`values` with their `low` and `high` quantiles, over `where` (bool), at 0 and 1."""
    kept = values[where]
    if not kept.numel():
        return torch.zeros_like(values)
    kept = kept[:: max(1, kept.numel() // 20_000)]
    bounds = torch.quantile(kept.float(), torch.tensor([low, high], device=values.device))
    return (values - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(1e-12)


def to_bytes(image: Tensor) -> Tensor:
    """[H, W, 3] uint8 on the CPU of an image in [0, 1]; values outside are clamped."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
