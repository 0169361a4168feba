"""Nearest neighbours among the centres of Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, count: int, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances [N, K] and int64 positions [N, K] of the nearest points, rising; K = `count`, or all there are.

    Args:
        points: [N, 3].
        count: neighbours of each.
        among: [M, 3] points to look among; None for the other ones of `points`.
    """
    from scipy.spatial import cKDTree

    own = among is None
    among = points if among is None else among
    have = among.shape[0] - own
    k = min(count, have)
    if k < 1:
        empty = points.new_zeros(points.shape[0], 0)
        return empty, empty.long()
    tree = cKDTree(among.detach().double().cpu().numpy())
    wanted = list(range(1, k + 1 + own))
    distance, index = tree.query(points.detach().double().cpu().numpy(), k=wanted, workers=-1)
    distances = torch.from_numpy(distance).to(points)
    positions = torch.from_numpy(index).to(points.device, torch.int64)
    if not own:
        return distances, positions
    # Among coincident points a point need not come first itself: it is left out wherever it is, else the last.
    rows = torch.arange(points.shape[0], device=points.device)[:, None]
    itself = positions == rows
    itself[:, -1] |= ~itself.any(1)
    return distances[~itself].view(-1, k), positions[~itself].view(-1, k)
