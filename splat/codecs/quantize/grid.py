"""Orders on a plane: a grid whose neighbouring cells hold Gaussians that are alike, so that its images compress."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from splat.codecs.quantize.order import morton_codes, morton_order

_BITS = 20  # of a feature: sums of products of such whole numbers are exact in float64
_SHRINK = 0.8  # of the blur's radius, from one target to the next
_PASSES = 6  # exchanges towards one target
_COARSEST = 8  # the first radius is this part of the longer side: the Morton order has placed what is larger
_EXCHANGED = list(permutations(range(4)))


def grid_order(features: Tensor, width: int, seed: int = 0) -> Tensor:
    """[N] int64: rows of `features` in the order in which they fill a grid row by row, neighbours alike.

    Neighbours are those of the plane, beside and above each other. Distances are Euclidean: columns count by the
    scale that they come in. The last row of the grid may be filled in part.

    Parallel linear assignment: the grid is blurred, and within blocks as large as the blur four cells each, drawn at
    random, exchange what they hold in the best of 24 ways for the blurred grid; the blur shrinks. It begins with the
    Morton order of the first three columns along the Morton curve of the grid. All is counted in whole numbers, so
    that the order is the same on every machine and device.

    Source: Morgenstern et al., Compact 3D Scene Representation via Self-Organizing Gaussian Grids, ECCV 2024,
    section 3.2.

    Args:
        features: [N, D] finite, D at least 1, in units that are comparable.
        width: cells in a row of the grid.
        seed: of the draws.

    Raises:
        ValueError: features or the width are of another shape.
    """
    if features.dim() != 2 or features.shape[1] == 0 or width < 1:
        raise ValueError(
            f"expected features [N, D] and a positive width, got {list(features.shape)}, {width}"
        )
    device, count = features.device, len(features)
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    whole = _whole(features)
    rows = -(-count // width)
    cells = torch.arange(rows * width, device=device)
    # Cells beyond the last row of features hold none, and keep it.
    filled = (cells < count).view(rows, width)
    places = torch.stack([cells % width, cells // width, cells * 0], 1)[:count]
    held = torch.zeros(rows * width, dtype=torch.int64, device=device)
    held[_along(places)] = morton_order(_three(whole))
    generator = torch.Generator().manual_seed(seed)
    radius = max(width, rows) / _COARSEST
    while radius >= 1:
        target = _blurred(whole[held].view(rows, width, -1), filled, int(radius))
        for _ in range(_PASSES):
            _exchange(held, whole, target.view(rows * width, -1), filled, int(radius), generator)
        radius *= _SHRINK
    return held[:count]


def _whole(features: Tensor) -> Tensor:
    """[N, D] float64 whole numbers of `_BITS` bits and a sign, in proportion to the features."""
    values = features.detach().double()
    values = values - (values.amin(0) + values.amax(0)) / 2
    return (values / values.abs().amax().clamp(min=torch.finfo(torch.float64).tiny) * (1 << _BITS)).round()


def _three(values: Tensor) -> Tensor:
    """[N, 3] the first three columns, zeros where there are fewer."""
    return torch.nn.functional.pad(values[:, :3], (0, max(0, 3 - values.shape[1])))


def _along(places: Tensor) -> Tensor:
    """Cells [N] along the Morton curve through places [N, 3]."""
    return morton_codes(places).argsort(stable=True)


def _blurred(grid: Tensor, filled: Tensor, radius: int) -> Tensor:
    """[H, W, D] whole numbers: means over boxes of 2 `radius` + 1 cells, and over such boxes of these."""
    weight = filled[..., None].double()
    for _ in range(2):
        sums = torch.cat([grid * weight, weight], 2)
        for axis in (0, 1):
            size = sums.shape[axis]
            before = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums.cumsum(axis)], axis)
            at = torch.arange(size, device=grid.device)
            high, low = (at + radius + 1).clamp(max=size), (at - radius).clamp(min=0)
            sums = before.index_select(axis, high) - before.index_select(axis, low)
        grid = (sums[..., :-1] / sums[..., -1:].clamp(min=1)).round()
    return grid


def _exchange(
    held: Tensor, values: Tensor, target: Tensor, filled: Tensor, radius: int, generator: torch.Generator
) -> None:
    """Let cells exchange what they hold, four each, towards `target` [H W, D]; `held` [H W] is changed."""
    rows, width = filled.shape
    high, wide = (min(side, 2 * radius + 2) for side in (rows, width))
    # Blocks begin anywhere; what is left of the grid beside them waits for another draw.
    top = int(torch.randint(0, rows % high + 1 if rows < 2 * high else high, (), generator=generator))
    left = int(torch.randint(0, width % wide + 1 if width < 2 * wide else wide, (), generator=generator))
    down, across = (rows - top) // high, (width - left) // wide
    cells = torch.arange(rows * width, device=held.device).view(rows, width)
    cells = cells[top : top + down * high, left : left + across * wide]
    blocks = cells.reshape(down, high, across, wide).transpose(1, 2).reshape(-1, high * wide)
    drawn = torch.randperm(high * wide, generator=generator)[: high * wide // 4 * 4].to(held.device)
    groups = blocks[:, drawn].reshape(-1, 4)
    if not bool(filled.all()):
        groups = groups[filled.view(-1)[groups].all(1)]
    here = held[groups]
    # The sum of squares to the target is least where the sum of products is largest.
    likeness = values[here] @ target[groups].transpose(1, 2)  # [G, holder, cell]
    ways = torch.tensor(_EXCHANGED, device=held.device)  # [24, cell] -> holder
    gains = likeness.new_zeros(24, 4, 4)
    gains[torch.arange(24)[:, None], ways, torch.arange(4)] = 1
    best = (likeness.flatten(1) @ gains.flatten(1).T).argmax(1)
    held[groups] = here.gather(1, ways[best])
