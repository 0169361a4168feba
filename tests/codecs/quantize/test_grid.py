"""Sorted grids: what they must keep, and how near their neighbours are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from splat.codecs.quantize import grid_order, morton_order


def random(count: int, columns: int, seed: int = 0) -> Tensor:
    return torch.rand(count, columns, generator=torch.Generator().manual_seed(seed))


def distance(features: Tensor, order: Tensor, width: int) -> float:
    """Mean of the distances beside and above, of the rows that are full."""
    grid = features[order[: len(order) // width * width]].view(-1, width, features.shape[1])
    beside, above = (grid.diff(dim=axis).norm(dim=2) for axis in (1, 0))
    return float(torch.cat([beside.flatten(), above.flatten()]).mean())


@pytest.mark.parametrize(
    ("count", "columns", "width"), [(1, 1, 1), (5, 2, 9), (97, 4, 10), (300, 3, 7), (64, 1, 64)]
)
def test_every_row_has_one_cell(count: int, columns: int, width: int) -> None:
    order = grid_order(random(count, columns), width)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))


def test_the_order_repeats_whatever_the_threads_and_the_scale() -> None:
    features = random(3000, 6)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = grid_order(features, 55)
        torch.set_num_threads(2)
        assert grid_order(features, 55).equal(first)
    finally:
        torch.set_num_threads(threads)
    # By powers of two, and about another place that float64 holds exactly: the same whole numbers.
    assert grid_order(features.double() * 8 - 3, 55).equal(first)
    assert not grid_order(features, 55, seed=1).equal(first)


@pytest.mark.parametrize("columns", [2, 3, 8])
def test_neighbours_are_nearer_than_in_morton_order(columns: int) -> None:
    """On a plane that is to be filled with points of a plane, of a cube, or with many attributes."""
    features = random(4096, columns)
    features = torch.cat([features, torch.zeros(4096, max(0, 3 - columns))], 1)
    along = distance(features, morton_order(features[:, :3]), 64)
    sorted_ = distance(features, grid_order(features, 64), 64)
    chance = distance(features, torch.arange(4096), 64)
    # Points of a plane can lie as they are: a neighbour is 1/64 away, where those at random are 0.52.
    bound = {2: 0.5, 3: 0.6, 8: 0.8}[columns]
    assert sorted_ < bound * along < bound * chance


def test_alike_and_none() -> None:
    assert sorted(grid_order(torch.full((50, 2), 3.5), 8).tolist()) == list(range(50))
    assert grid_order(torch.empty(0, 3), 8).tolist() == []
    for features, width in ((torch.zeros(3), 2), (torch.zeros(3, 0), 2), (torch.zeros(3, 1), 0)):
        with pytest.raises(ValueError, match="expected features"):
            grid_order(features, width)
