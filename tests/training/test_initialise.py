"""The first Gaussians: colours, sizes, duplicates, limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from splat import codecs
from splat.core import DataError, UsageError
from splat.core.sh import C0
from splat.data import Points
from splat.training.config import InitConfig, TrainConfig
from splat.training.initialise import initialise, neighbour_distances


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_points_give_their_place_colour_and_spacing(dataset: Any) -> None:
    dataset.points = Points(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64),
        torch.tensor([[255, 0, 51]] * 4, dtype=torch.uint8),
    )
    config = TrainConfig(init=InitConfig("points", opacity=0.3, scale=0.5), sh_degree=2, antialiased=True)
    g = initialise(config, dataset, 100, generator())
    assert g.means.tolist() == dataset.points.xyz.tolist()
    assert g.sh.shape == (4, 9, 3)
    torch.testing.assert_close(0.5 + C0 * g.sh[0, 0], torch.tensor([1.0, 0.0, 0.2]))
    assert (g.sh[:, 1:] == 0).all()
    # The origin is at distance 1 of the three others; those are at 1, sqrt 2 and sqrt 2 of theirs.
    expected = 0.5 * torch.tensor([1.0, (5 / 3) ** 0.5, (5 / 3) ** 0.5, (5 / 3) ** 0.5])
    torch.testing.assert_close(g.scales()[:, 0], expected)
    torch.testing.assert_close(g.opacities(), torch.full((4,), 0.3))
    assert g.quats.tolist() == [[1, 0, 0, 0]] * 4
    assert g.antialiased


def test_duplicates_and_lonely_points_get_positive_sizes() -> None:
    xyz = torch.tensor([[0.0, 0, 0]] * 5 + [[2.0, 0, 0]])
    assert neighbour_distances(xyz, fallback=0.1).tolist() == [2.0] * 6
    assert neighbour_distances(xyz[:5], fallback=0.1).tolist() == pytest.approx([0.1] * 5)


def test_neighbour_distances_equal_all_pairs() -> None:
    xyz = torch.rand(300, 3, generator=generator(), dtype=torch.float64).float()
    pairs = torch.cdist(xyz.double(), xyz.double())
    nearest = pairs.sort(1).values[:, 1:4]
    expected = nearest.square().mean(1).sqrt().float()
    torch.testing.assert_close(neighbour_distances(xyz, fallback=1.0), expected)


def test_the_cap_takes_a_random_part_of_the_points(dataset: Any) -> None:
    g = initialise(TrainConfig(init=InitConfig("points")), dataset, 10, generator())
    assert len(g) == 10
    places = {tuple(p) for p in dataset.points.xyz.float().tolist()}
    assert all(tuple(p) in places for p in g.means.tolist())


def test_random_points_where_there_are_none_or_on_demand(dataset: Any) -> None:
    config = TrainConfig(init=InitConfig(count=50))
    for points, source in ((None, "auto"), (dataset.points, "random")):
        dataset.points = points
        g = initialise(replace(config, init=InitConfig(count=50, source=source)), dataset, 1000, generator())
        assert len(g) == 50
        assert g.means.abs().max() <= 1.0  # the toy's bounds
    dataset.points = None
    with pytest.raises(DataError, match=r"toy: has no points.*--init\.source random"):
        initialise(replace(config, init=InitConfig(source="points")), dataset, 1000, generator())


def test_a_scene_file_is_taken_as_it_is(dataset: Any, truth: Any, tmp_path: Any) -> None:
    place = tmp_path / "scene.ply"
    codecs.encode(truth, place, {"offset": [10.0, 0.0, 0.0]})
    dataset.offset = torch.tensor([7.0, 1.0, 0.0], dtype=torch.float64)
    config = TrainConfig(init=InitConfig(scene=str(place)), sh_degree=2, antialiased=True)
    said: list[str] = []
    g = initialise(config, dataset, 100, generator(), say=said.append)
    assert said == [f"begins with the scene {place}: 30 Gaussians"]
    torch.testing.assert_close(g.means, truth.means + torch.tensor([3.0, -1.0, 0.0]))
    assert torch.equal(g.logit_opacities, truth.logit_opacities)
    assert torch.equal(g.sh[:, :4], truth.sh)  # of degree 1
    assert (g.sh[:, 4:] == 0).all()
    assert g.sh.shape == (30, 9, 3)
    assert g.antialiased


def test_a_scene_file_must_exist_and_fit(dataset: Any, truth: Any, tmp_path: Any) -> None:
    place = tmp_path / "scene.ply"
    config = TrainConfig(init=InitConfig(scene=str(place)))
    with pytest.raises(DataError, match=r"scene\.ply: no such file"):
        initialise(config, dataset, 100, generator())
    codecs.encode(truth, place)
    with pytest.raises(UsageError, match="30 Gaussians, more than the cap of 29; raise --max-gaussians"):
        initialise(config, dataset, 29, generator())
