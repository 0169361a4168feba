"""Orders in which neighbours are alike, so that what follows compresses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

_BITS = 21  # per axis, 63 in all


def morton_codes(means: Tensor) -> Tensor:
    """[N] int64: places on the Morton curve through the bounding box, 21 bits an axis, x in the lowest bit.

    Cells are counted in float64: float32 would merge neighbours far from the origin.

    Args:
        means: [N, 3] finite.
    """
    points = means.detach().double()
    if len(points) == 0:
        return torch.empty(0, dtype=torch.int64, device=means.device)
    low = points.amin(0)
    # Each axis by its own extent; one without extent has the code 0.
    extent = (points.amax(0) - low).clamp(min=torch.finfo(torch.float64).tiny)
    last = (1 << _BITS) - 1
    cells = ((points - low) / extent * last).round().long().clamp(0, last)
    if cells.device.type == "cpu":
        # The same operators on numpy's arrays: many small steps, for which torch would wake its threads each time.
        return torch.from_numpy(_interleave(cells.numpy()))
    return _interleave(cells)


def _interleave(cells: Any) -> Any:
    """[N] codes of cells [N, 3], of torch or numpy."""
    return _spread(cells[:, 0]) | _spread(cells[:, 1]) << 1 | _spread(cells[:, 2]) << 2


def morton_order(means: Tensor) -> Tensor:
    """[N] int64: the Gaussians along the Morton curve; equals keep their order."""
    codes = morton_codes(means)
    if codes.device.type == "cpu":
        return torch.from_numpy(np.argsort(codes.numpy(), kind="stable"))
    return codes.sort(stable=True).indices


def _spread(x: Any) -> Any:
    """Bit i of a 21-bit number to bit 3 i."""
    x = (x | x << 32) & 0x1F00000000FFFF
    x = (x | x << 16) & 0x1F0000FF0000FF
    x = (x | x << 8) & 0x100F00F00F00F00F
    x = (x | x << 4) & 0x10C30C30C30C30C3
    return (x | x << 2) & 0x1249249249249249
