"""Dataset: splits, resolutions, extent, recentring, random points, cache and threads."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from patience import wait

from splat.core import DataError, UsageError
from splat.data import Dataset, Points, random_points, read_scene
from splat.data.cache import PhotoCache
from splat.data.images import Photo


def moved(scene, offset: torch.Tensor):
    """The scene with its world moved by `offset`."""
    frames = []
    for frame in scene.frames:
        pose = frame.camera.world_to_camera.clone()
        pose[:3, 3] -= pose[:3, :3] @ offset
        frames.append(replace(frame, camera=frame.camera.with_pose(pose)))
    return replace(scene, frames=frames, points=replace(scene.points, xyz=scene.points.xyz + offset))


def test_splits(small_sample):
    scene = read_scene(small_sample)
    with Dataset(scene) as data:
        assert data.train == [0, 1, 2, 3, 4, 5]
        assert data.test == []
    with Dataset(scene, holdout=True) as data:
        assert data.test == [0]
        assert data.train == [1, 2, 3, 4, 5]
    named = replace(scene, test_names=frozenset({"view_002.png", "view_005.png"}))
    with Dataset(named) as data:
        assert data.test == [2, 5]
        assert data.train == [0, 1, 3, 4]


@pytest.mark.parametrize("downscale", [1.0, 1.5, 2.0, 4.0, 7.3])
def test_downscale_scales_camera_and_photograph_alike(downscale, small_sample):
    scene = read_scene(small_sample)
    with Dataset(scene, downscale=downscale) as data:
        camera, full = data.camera(1), scene.frames[1].camera
        assert (camera.width, camera.height) == (round(64 / downscale), round(48 / downscale))
        assert data.photo(1).image.shape == (camera.height, camera.width, 3)
        assert camera.fx == pytest.approx(full.fx * camera.width / 64)
        assert camera.cy == pytest.approx(full.cy * camera.height / 48)
        whole = Dataset(scene)
        # The mean colour survives averaging; rounding to 8 bits is off by half a level at most.
        difference = data.photo(1).image.float().mean((0, 1)) - whole.photo(1).image.float().mean((0, 1))
        assert difference.abs().max() < 0.5
        whole.close()


@pytest.mark.parametrize("downscale", [0.5, 0.0, -1.0, float("nan"), float("inf")])
def test_impossible_downscale(downscale, small_sample):
    with pytest.raises(UsageError, match="downscale"):
        Dataset(read_scene(small_sample), downscale=downscale)


def test_a_downscale_that_leaves_next_to_nothing_is_refused(small_sample):
    with pytest.raises(UsageError, match=r"downscale 30 leaves 2x2 pixels of view_000\.png; give a smaller"):
        Dataset(read_scene(small_sample), downscale=30)


def test_extent(small_sample):
    scene = read_scene(small_sample)
    positions = torch.stack([frame.camera.position for frame in scene.frames])
    radius = float((positions - positions.mean(0)).norm(dim=1).max())
    with Dataset(scene) as data:
        assert data.extent == pytest.approx(1.1 * radius)
    # Cameras a thousandth as far apart: the depth of the points decides.
    frames = []
    for frame in scene.frames:
        pose = frame.camera.world_to_camera.clone()
        pose[:3, 3] = -pose[:3, :3] @ (1e-3 * frame.camera.position)
        frames.append(replace(frame, camera=frame.camera.with_pose(pose)))
    ahead = torch.stack([f.camera.position + 5 * f.camera.forward for f in frames])
    close = replace(scene, frames=frames, points=Points(ahead[:1], torch.zeros(1, 3, dtype=torch.uint8)))
    depths = [float(((ahead[:1] - f.camera.position) @ f.camera.forward)[0]) for f in frames]
    median = sorted(depth for depth in depths if depth > 0)
    with Dataset(close) as data:
        assert data.extent == pytest.approx(0.1 * median[(len(median) - 1) // 2])


def test_far_scenes_are_recentred(small_sample):
    scene = read_scene(small_sample)
    offset = torch.tensor([4.5e5, -5.2e6, 120.0], dtype=torch.float64)
    far = moved(scene, offset)
    with Dataset(far) as data, Dataset(scene) as near:
        assert near.offset.tolist() == [0, 0, 0]
        assert near.points is scene.points
        assert float((data.offset - offset).norm()) < 10 * data.extent
        # float64 holds 5e6 to 1e-9, and the poses are float32 numbers of size 4.
        back = data.points.xyz + data.offset - offset
        torch.testing.assert_close(back, scene.points.xyz, rtol=0, atol=4e-9)
        for index in range(len(data)):
            position = data.camera(index).position.double() + (data.offset - offset)
            expected = scene.frames[index].camera.position
            torch.testing.assert_close(position, expected, rtol=0, atol=4 * 4 * 2**-23)


def test_random_points(small_sample, monkeypatch):
    monkeypatch.setattr("splat.data.points.FEW_VIEWS", 5)  # its six are many here
    scene = read_scene(small_sample)
    with Dataset(scene) as data:
        points = random_points(data, 4000, torch.Generator().manual_seed(1))
        again = random_points(data, 4000, torch.Generator().manual_seed(1))
        assert torch.equal(points.xyz, again.xyz)
        assert points.rgb.dtype == torch.uint8
        centre = torch.stack([frame.camera.position for frame in scene.frames]).mean(0)
        half = 3 * data.extent / 1.1
        away = (points.xyz - centre).abs()
        assert float(away.max()) <= half
        assert float(away.amax(0).min()) > 0.99 * half
    with Dataset(replace(scene, bounds=1.3)) as data:
        points = random_points(data, 4000, torch.Generator().manual_seed(1))
        assert 1.28 < float(points.xyz.abs().max()) <= 1.3


def test_photograph_damaged_after_reading_is_named(sample):
    scene = read_scene(sample)
    path = scene.frames[2].path
    path.write_bytes(path.read_bytes()[:200])
    with Dataset(scene) as data:
        data.prefetch([2])
        for _ in range(2):  # and again: a failure is not cached
            with pytest.raises(DataError, match=r"view_002\.png: photograph is damaged"):
                data.photo(2)
        assert data.photo(1).image.shape == (48, 64, 3)


def test_photograph_changed_after_reading_is_named(sample):
    from PIL import Image

    scene = read_scene(sample)
    Image.new("RGB", (32, 24)).save(scene.frames[0].path)
    with (
        Dataset(scene) as data,
        pytest.raises(DataError, match=r"view_000\.png: photograph is 32x24 but was 64x48 before; leave"),
    ):
        data.photo(0)


def small(index: int) -> Photo:
    return Photo(torch.full((10, 10, 3), index, dtype=torch.uint8))


def test_cache_keeps_its_budget_and_the_latest():
    loads = []
    cache = PhotoCache(lambda index: loads.append(index) or small(index), budget=900)
    for index in (0, 1, 2, 0, 3):  # 300 bytes each: 1 is the one used longest ago
        assert int(cache.get(index).image[0, 0, 0]) == index
    assert cache.nbytes == 900
    for index in (0, 2, 3):
        cache.get(index)
    assert loads == [0, 1, 2, 3]
    cache.get(1)
    assert loads == [0, 1, 2, 3, 1]
    cache.close()
    assert cache.nbytes == 0


def test_a_photograph_larger_than_the_budget_still_comes():
    cache = PhotoCache(small, budget=10)
    assert int(cache.get(7).image[0, 0, 0]) == 7
    cache.close()


def test_each_photograph_is_loaded_once_however_many_ask():
    loads: list[int] = []
    lock = threading.Lock()

    def load(index: int) -> Photo:
        with lock:
            loads.append(index)
        time.sleep(0.01)
        return small(index)

    cache = PhotoCache(load, budget=1 << 20)

    def ask(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(12).tolist()
        for position, index in enumerate(order):
            cache.prefetch(order[position:])
            assert int(cache.get(index).image[0, 0, 0]) == index

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert sorted(loads) == list(range(12))


def test_prefetch_works_ahead_but_not_without_bound():
    loads: list[int] = []
    cache = PhotoCache(lambda index: loads.append(index) or small(index), budget=1 << 20, ahead=3)
    cache.prefetch(range(100))
    wait(lambda: len(loads) >= 3)
    cache.close()
    assert sorted(loads) == [0, 1, 2]


def test_failure_in_a_thread_reaches_the_caller():
    def load(index: int) -> Photo:
        raise DataError(f"photo {index} is damaged; replace it")

    cache = PhotoCache(load, budget=100)
    cache.prefetch([5])
    with pytest.raises(DataError, match="photo 5"):
        cache.get(5)
    cache.close()


def test_close_stops_the_threads(small_sample):
    before = threading.active_count()
    data = Dataset(read_scene(small_sample))
    data.prefetch(range(6))
    data.close()
    assert threading.active_count() == before
