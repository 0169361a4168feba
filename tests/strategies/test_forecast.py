"""What a run will take: the counts that growth leads to, points in any number, time and memory from a pace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splat.data import Points, read_scene
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.strategies.growth import expected_counts
from splat.training import forecast, memory
from splat.training.config import load_preset
from splat.training.forecast import Pace
from splat.training.session import assemble, open_dataset


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast") / "scene"
    return write_sample(folder, views=4, width=48, height=36, points=150, samples=1, truth=False)


@pytest.mark.parametrize("pruned", [False, True])
def test_expected_counts_are_those_of_a_run(pruned, dataset_folder):
    """MCMC with growth every 3 steps, and two prunings, against the Gaussians that there are at each step."""
    options = {"mcmc": {"growth": 1.2, "refine_start": 4, "refine_every": 3}}
    names = ("mcmc",)
    if pruned:
        options["spectral"] = {"keep": 0.3, "times": 2, "start": 0.3, "stop": 0.7, "method": "opacity"}
        names = ("mcmc", "spectral")
    preset = load_preset("cpu")
    config = replace(preset, strategies=names, steps=40, options=options, max_gaussians=400, device="cpu")
    strategies = registry.build(config.strategies, config.options)
    with open_dataset(dataset_folder, config) as dataset:
        session = assemble(config, dataset, strategies)
        counts = []
        for _ in range(config.steps):
            counts.append(len(session.trainer.ctx.gaussians))
            session.trainer.step()
    assert counts[0] == 150
    assert max(counts) == 400 if not pruned else counts[-1] < 150
    assert expected_counts(strategies, config.steps, 150, 400) == counts


def test_what_the_scene_decides_is_not_expected():
    assert expected_counts(registry.build(["default"]), 100, 10, 1000) is None


@pytest.mark.parametrize("count", [40, 150, 1000])
def test_spread_points_fill_the_same_space(count, dataset_folder):
    points = read_scene(dataset_folder).points
    found = forecast.spread(points, count)
    assert len(found) == len(found.rgb) == count
    assert torch.isfinite(found.xyz).all()
    known = {tuple(row) for row in points.xyz.tolist()}
    assert sum(tuple(row) in known for row in found.xyz.tolist()) == min(count, 150)
    # Strewn by the distance between neighbours, not further: medians and spreads stay.
    size = points.xyz.std(0)
    assert ((found.xyz.median(0).values - points.xyz.median(0).values).abs() < 0.4 * size).all()
    assert (found.xyz.std(0) < 1.5 * size).all()


def test_spread_of_one_point():
    one = Points(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.uint8))
    assert len(forecast.spread(one, 10)) == 10


def test_time_and_memory_follow_the_counts(dataset_folder):
    scene = read_scene(dataset_folder)
    pace = Pace((10_000, 40_000), (0.010, 0.025), 0.5, 400 << 20)
    assert pace.step(10_000) == pytest.approx(0.010)
    assert pace.step(70_000) == pytest.approx(0.040)
    assert pace.step(0) == pytest.approx(0.005)
    config = replace(load_preset("cpu"), steps=100)
    photographs, pixels = 4 * 0.5, 4 * 48 * 36 * 3
    still = forecast.forecast(config, scene, pace, lambda start, cap: None)
    assert (still.start, still.count, still.at_least) == (150, 150, True)
    assert still.seconds == pytest.approx(100 * pace.step(150) + photographs)
    grown = forecast.forecast(config, scene, pace, lambda start, cap: [start] * 50 + [cap] * 50)
    assert grown.count == 40_000
    assert not grown.at_least
    assert grown.seconds == pytest.approx(50 * pace.step(150) + 50 * 0.025 + photographs)
    assert grown.nbytes == (400 << 20) + pixels
    more = forecast.forecast(config, scene, pace, lambda start, cap: [41_000])
    assert more.nbytes - grown.nbytes == 1000 * memory.bytes_per_gaussian(16)


def test_large_photographs_are_timed_small(dataset_folder, monkeypatch):
    """Of 10 us for each pixel and 1 us for each Gaussian the whole is made up again, whatever is timed."""
    seen = []

    def fake(config, dataset, strategies):
        camera = dataset.camera(0)
        seen.append(camera.width * camera.height)
        processor = 1e-5 * seen[-1] + 1e-6 * len(dataset.points)
        return forecast._Timing(clock=3 * processor, typical=processor)  # the machine is busy

    monkeypatch.setattr(forecast, "_time_steps", fake)
    scene, config = read_scene(dataset_folder), replace(load_preset("cpu"), device="cpu")
    whole = 48 * 36
    for limit, sizes in ((10_000, [whole]), (whole // 4, [whole // 4, whole // 16])):
        monkeypatch.setattr(forecast, "_PIXELS", limit)
        seen.clear()
        pace = forecast.measure(scene, config, list)
        assert seen == 2 * sizes
        for count, seconds in zip(pace.counts, pace.seconds, strict=True):
            assert seconds == pytest.approx(3 * (1e-5 * whole + 1e-6 * count))


def test_pace_is_measured_with_and_without_points(dataset_folder, monkeypatch):
    monkeypatch.setattr(forecast, "COUNTS", (100, 4000))
    monkeypatch.setattr(forecast, "_SECONDS", 0.2)
    scene = read_scene(dataset_folder)
    config = replace(load_preset("cpu"), device="cpu")
    for points in (scene.points, None):
        pace = forecast.measure(
            replace(scene, points=points), config, lambda: registry.build(config.strategies, config.options)
        )
        assert pace.seconds[0] > 0
        assert pace.seconds[1] > 0
        assert pace.photograph > 0
        assert pace.resident > 50 << 20
