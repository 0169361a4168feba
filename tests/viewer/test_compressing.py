"""Plans to make a scene smaller: what goes first, what a codec costs, calling it off."""

from __future__ import annotations

import pytest
import torch
from scenes import camera, mixed

from splat.core import Gaussians, UsageError
from splat.raster import render
from splat.viewer import compressing
from splat.viewer.compressing import Plan
from splat.viewer.jobs import CalledOff


@pytest.fixture(scope="module")
def scene() -> Gaussians:
    return mixed(80, seed=3).to(torch.float32)


@pytest.fixture(scope="module")
def views():
    return [camera(40, 28, distance, torch.float32) for distance in (3.5, 4.0, 5.0)]


def test_the_least_wanted_are_dropped():
    order = torch.tensor([3, 0, 4, 1, 2])
    assert compressing.dropped(order, 0.5).nonzero()[:, 0].tolist() == [1, 2]
    assert not compressing.dropped(order, 0.0).any()
    assert compressing.dropped(order, 0.999).nonzero()[:, 0].tolist() == [0, 1, 2, 4]
    assert len(compressing.dropped(order[:0], 0.5)) == 0


def test_pruning_by_contribution_costs_less_than_at_random(scene, views):
    def error(method: str) -> float:
        out = compressing.dropped(compressing.ranked(scene, method, views), 0.5)
        fewer = scene.select(~out)
        pictures = [(render(scene, v).image - render(fewer, v).image).square().mean() for v in views]
        return float(sum(pictures))

    assert error("contribution") < 0.5 * error("random")


def test_what_is_never_seen_goes_first(scene, views):
    unseen = scene.select(torch.arange(80))
    unseen.means[5] = torch.tensor([0.0, 0, -90])
    order = compressing.ranked(unseen, "contribution", views).tolist()
    pictures = [render(unseen.select(torch.tensor([5])), view).alpha.max() for view in views]
    assert max(pictures) == 0
    assert order.index(5) > 40


def test_an_outcome_is_what_the_file_holds(scene):
    plan = Plan(0.5, "opacity", 0, ".ply", {})
    outcome = compressing.carry_out(scene, torch.arange(80), plan)
    assert outcome.dropped.nonzero()[:, 0].tolist() == list(range(40, 80))
    # 17 float32 properties of a degree-0 .ply, and the header.
    assert 40 * 17 * 4 < outcome.bytes < 40 * 17 * 4 + 2000
    assert torch.equal(outcome.gaussians.means, scene.means[:40])
    assert torch.equal(outcome.gaussians.sh, outcome.written.sh)
    nothing = compressing.carry_out(scene, torch.arange(80), Plan(0.0, "opacity", 3, ".ply", {}))
    assert torch.equal(nothing.gaussians.sh, scene.sh)
    assert not nothing.dropped.any()


def test_likeness_falls_with_what_is_left_out(scene, views):
    order = compressing.ranked(scene, "contribution", views)
    scores = []
    for share in (0.0, 0.2, 0.6):
        outcome = compressing.carry_out(scene, order, Plan(share, "contribution", 3, ".ply", {}))
        scores.append(compressing.likeness(scene, outcome.gaussians, views, (0, 0, 0)))
    assert scores[0] == 100  # a .ply keeps every bit
    assert scores[0] > scores[1] > scores[2]


def test_calling_off(scene, views):
    with pytest.raises(CalledOff):
        compressing.ranked(scene, "contribution", views, lambda: False)
    with pytest.raises(CalledOff):
        compressing.likeness(scene, scene, views, (0, 0, 0), lambda: False)


def test_what_does_not_fit_is_named(scene):
    with pytest.raises(UsageError, match="choose from"):
        compressing.through_codec(scene, ".xyz", {}, {})
    with pytest.raises(UsageError, match="needs the cameras"):
        compressing.ranked(scene, "contribution", [])
