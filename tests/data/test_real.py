"""Readers and photographs on real datasets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from splat.data import Dataset, read_scene


def positions(scene):
    return torch.stack([frame.camera.position for frame in scene.frames]).numpy()


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` moved onto `target` by the least-squares similarity (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (singular @ np.diag(sign)) / (a**2).sum()
    return scale * a @ (u @ sign @ vt).T + target.mean(0)


def test_fox_colmap(shared_data):
    scene = read_scene(shared_data("fox"))
    assert scene.reader == "colmap"
    assert len(scene.frames) == 50
    assert [frame.name for frame in scene.frames] == sorted(frame.name for frame in scene.frames)
    assert scene.points is not None
    assert scene.points.xyz.shape == (12110, 3)
    assert scene.points.tracks is not None
    assert len(scene.points.tracks.offsets) == 12111
    with Dataset(scene, downscale=4, holdout=True) as data:
        assert data.test == list(range(0, 50, 8))
        assert sorted(data.train + data.test) == list(range(50))
        camera = data.camera(0)
        assert (camera.width, camera.height) == (270, 480)
        assert camera.world_to_camera.dtype == torch.float32
        photo = data.photo(0)
        assert photo.image.shape == (480, 270, 3)
        assert photo.alpha is None


def test_fox_poses_of_both_formats_agree(shared_data):
    """COLMAP's and instant-ngp's poses agree up to a similarity: to 0.03% of the extent, says the data's README
    (root mean square over the diagonal of the cameras' bounding box, rounded)."""
    colmap = read_scene(shared_data("fox"))
    ngp = read_scene(shared_data("fox") / "transforms.json")
    assert ngp.reader == "transforms"
    assert any("17 of the 67 photographs" in line for line in ngp.warnings)
    assert [f"images/{frame.name}" for frame in colmap.frames] == [frame.name for frame in ngp.frames]
    target = positions(ngp)
    moved = similarity(positions(colmap), target)
    extent = np.linalg.norm(np.ptp(target, axis=0))
    error = np.sqrt(((moved - target) ** 2).sum(1).mean())
    assert error < 0.00035 * extent


def test_chair(shared_data):
    scene = read_scene(shared_data("chair"))
    assert scene.reader == "blender"
    with Dataset(scene, downscale=2, background=(1.0, 1.0, 1.0)) as data:
        assert len(data.train) == 100
        assert len(data.test) == 200
        assert all(scene.frames[index].name.startswith("train/") for index in data.train)
        photo = data.photo(0)
        assert photo.image.shape == (400, 400, 3)
        assert photo.alpha is None
        assert photo.image[0, 0].tolist() == [255, 255, 255]
    with Dataset(scene, downscale=2) as data:
        alpha = data.photo(0).alpha
        assert alpha is not None
        assert alpha[0, 0] == 0
        assert data.camera(0).fx == pytest.approx(555.5555155968841)
