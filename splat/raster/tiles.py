"""Which tiles of the image each projected Gaussian touches, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.raster.constants import TILE
from splat.raster.projection import Projected

# Gaussian-tile pairs that are tested at a time: bounds the memory, about 100 bytes each.
_CHUNK = 1 << 21


def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Tiles across and down; the last ones may stick out."""
    return -(-width // TILE), -(-height // TILE)


@torch.no_grad()
def intersections(projected: Projected, width: int, height: int, slack: float = 0.0) -> tuple[Tensor, Tensor]:
    """The pairs of a Gaussian and a tile that it touches.

    A Gaussian touches a tile if its ellipse alpha >= ALPHA_MIN meets the rectangle spanned by the centres
    of the tile's pixels (those inside the image). Tested in float64 whatever the scene's type.

    Args:
        slack: added to the ellipses' exponent, for callers that test alpha again at each pixel.

    Returns:
        [P] positions in `projected` and [P] tiles (row-major), sorted by tile and then by depth.
    """
    across, down = tile_grid(width, height)
    centre = projected.means2d.double()
    conic = projected.conics.double()
    limit = projected.limits.double() + slack
    # Half the ellipse's bounding box: sqrt(2 limit cov).
    half = torch.sqrt(2 * limit[:, None] * projected.covs2d.double()[:, [0, 2]])
    size = torch.tensor([across, down], dtype=torch.float64, device=centre.device)
    # A tile's first pixel centre lies at 16 i + 0.5, its last at 16 i + 15.5.
    first = torch.ceil((centre - half - (TILE - 0.5)) / TILE).clamp_min(0)
    last = torch.minimum(torch.floor((centre + half - 0.5) / TILE), size - 1)
    counts = (last - first + 1).clamp_min(0).long()
    pairs = counts[:, 0] * counts[:, 1]

    found_gaussian, found_tile = [], []
    for begin, end in _spans(pairs, _CHUNK):
        gaussian = torch.repeat_interleave(torch.arange(begin, end, device=pairs.device), pairs[begin:end])
        start = torch.cumsum(pairs[begin:end], 0) - pairs[begin:end]
        rank = torch.arange(len(gaussian), device=pairs.device) - start[gaussian - begin]
        columns = counts[gaussian, 0]
        tx = first[gaussian, 0].long() + rank % columns
        ty = first[gaussian, 1].long() + rank // columns
        low = torch.stack([tx, ty], -1) * TILE + 0.5
        edge = torch.tensor([width - 0.5, height - 0.5], dtype=torch.float64, device=low.device)
        high = torch.minimum(low + (TILE - 1), edge)
        hit = _least_exponent(centre[gaussian], conic[gaussian], low, high) <= limit[gaussian]
        found_gaussian.append(gaussian[hit])
        found_tile.append((ty * across + tx)[hit])
    if not found_gaussian:
        empty = torch.zeros(0, dtype=torch.int64, device=pairs.device)
        return empty, empty
    gaussian, tile = torch.cat(found_gaussian), torch.cat(found_tile)
    order = torch.argsort(tile, stable=True)
    return gaussian[order], tile[order]


def _least_exponent(centre: Tensor, conic: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[P] least sigma = d^T conic d / 2 over rectangles [low, high], all float64 [P, 2] ([P, 3] the conic).

    sigma is convex with its minimum at the centre. Where that lies outside, the least value is on a side
    that faces it: x or y fixed at the nearest value and the other free, clamped to the rectangle.
    """
    near = torch.maximum(low, torch.minimum(high, centre)) - centre
    a, b, c = conic.unbind(-1)
    lo, hi = low - centre, high - centre
    dx, dy = near.unbind(-1)
    along_y = torch.maximum(lo[:, 1], torch.minimum(hi[:, 1], -b * dx / c))
    along_x = torch.maximum(lo[:, 0], torch.minimum(hi[:, 0], -b * dy / a))

    def sigma(x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (a * x * x + c * y * y) + b * x * y

    return torch.minimum(sigma(dx, along_y), sigma(along_x, dy))


def _spans(pairs: Tensor, limit: int) -> list[tuple[int, int]]:
    """Ranges of Gaussians with at most `limit` pairs together (or one Gaussian alone)."""
    totals = torch.cumsum(pairs, 0)
    spans, begin = [], 0
    while begin < len(pairs):
        before = totals[begin - 1] if begin else 0
        end = max(begin + 1, int(torch.searchsorted(totals, before + limit, right=True)))
        spans.append((begin, end))
        begin = end
    return spans
