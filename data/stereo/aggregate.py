"""Semi-global aggregation of a cost volume (Hirschmueller 2008): smooth depths that jump at the picture's edges."""

from __future__ import annotations

import torch
from torch import Tensor

_STRAIGHT = ((0, 1), (0, -1), (1, 0), (-1, 0))
_DIAGONAL = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def semi_global(
    cost: Tensor, luma: Tensor, *, small: float, large: float, edge: float, directions: int = 8
) -> Tensor:
    """[D, H, W] aggregated cost, the mean over the directions.

    Args:
        cost: [D, H, W].
        luma: [H, W] in [0, 1]; a step in it makes jumps of depth cheaper.
        small: penalty of a change by one plane from a pixel to the next.
        large: penalty of a larger change where the picture is flat.
        edge: step of luma that halves the penalty of jumps.
        directions: 4 or 8 paths to each pixel.
    """
    volume = cost.permute(1, 2, 0).contiguous()  # [H, W, D]
    total = torch.zeros_like(volume)
    for dy, dx in (_STRAIGHT + _DIAGONAL)[:directions]:
        if dy == 0:
            _path(volume.transpose(0, 1), luma.T, total.transpose(0, 1), dx, 0, small, large, edge)
        else:
            _path(volume, luma, total, dy, dx, small, large, edge)
    return (total / directions).permute(2, 0, 1)


def _path(
    volume: Tensor,
    luma: Tensor,
    total: Tensor,
    forward: int,
    side: int,
    small: float,
    large: float,
    edge: float,
) -> None:
    """Add the costs of paths that go through the first axis in direction `forward`, and sideways by `side` a step."""
    rows, columns = volume.shape[:2]
    order = range(rows) if forward > 0 else range(rows - 1, -1, -1)
    infinite = torch.full((columns, 1), torch.inf, device=volume.device, dtype=volume.dtype)
    previous = volume[order[0]]
    total[order[0]] += previous
    before = luma[order[0]]
    for row in order[1:]:
        if side:
            previous, before = previous.roll(side, 0), before.roll(side, 0)
        least = previous.amin(1, keepdim=True)
        jump = (large / (1 + (luma[row] - before).abs() / edge)).clamp_min(small)[:, None]
        padded = torch.cat([infinite, previous, infinite], 1)
        step = torch.minimum(padded[:, :-2], padded[:, 2:]) + small
        current = torch.minimum(torch.minimum(previous, step), least + jump).sub_(least).add_(volume[row])
        if side:  # paths that enter here from the side begin here
            entering = 0 if side > 0 else columns - 1
            current[entering] = volume[row, entering]
        total[row] += current
        previous, before = current, luma[row]
