"""Numbers as colours."""

from __future__ import annotations

from functools import cache

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


@cache
def _table() -> Tensor:
    """[1024, 3] turbo's colours, blue to red."""
    x = torch.linspace(0, 1, 1024, dtype=torch.float64)[:, None]
    powers = torch.cat([x**k for k in range(len(_TURBO))], 1)
    return (powers @ torch.tensor(_TURBO, dtype=torch.float64)).clamp(0, 1).float()


def turbo(values: Tensor) -> Tensor:
    """[..., 3] colours of values in [0, 1], blue to red; values outside are clamped, NaN counts as 0."""
    index = values.nan_to_num(0.0).clamp(0, 1).mul(1023).round().long()
    return _table().to(values.device)[index]


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
