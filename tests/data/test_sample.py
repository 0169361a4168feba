"""The sample scene: the round trip through COLMAP's files, and that its ground truth is true."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from splat.data import Dataset, read_scene
from splat.data.sample import render_sample, sample_cameras, write_sample
from splat.data.sample_scene import build_world


def test_round_trip(small_sample):
    scene = read_scene(small_sample)
    assert scene.reader == "colmap"
    assert scene.warnings == []
    cameras = sample_cameras(6, 64, 48)
    assert [frame.name for frame in scene.frames] == [camera.name for camera in cameras]
    for frame, camera in zip(scene.frames, cameras, strict=True):
        read = frame.camera
        assert (read.width, read.height, read.fx, read.cx) == (64, 48, camera.fx, camera.cx)
        # The file holds a quaternion: rounding of float64 only.
        torch.testing.assert_close(read.world_to_camera, camera.world_to_camera, rtol=0, atol=1e-12)
        assert frame.distortion is None
    with Dataset(scene) as data:
        stored = np.asarray(Image.open(scene.frames[3].path))
        np.testing.assert_array_equal(data.photo(3).image.numpy(), stored)
        assert data.photo(3).mask is None


def test_points_are_exact_and_tracks_are_visible(small_sample):
    """Each observed point lies where the camera's own ray meets the first surface."""
    scene = read_scene(small_sample)
    points = scene.points
    assert points is not None
    assert points.tracks is not None
    assert len(points) == 300
    assert float(points.error.max()) < 1e-9
    world = build_world(0)
    counts = torch.zeros(300, dtype=torch.int64)
    for index, frame in enumerate(scene.frames):
        seen = points.tracks.points()[points.tracks.frames == index]
        counts[seen] += 1
        origin = frame.camera.position.numpy()
        rays = points.xyz[seen].numpy() - origin
        length = np.linalg.norm(rays, axis=1)
        hit, _ = world.hit(np.broadcast_to(origin, rays.shape), rays / length[:, None])
        np.testing.assert_allclose(hit, length, rtol=0, atol=1e-4)
    assert int(counts.min()) >= 2


def test_depth_and_normals_agree(small_sample):
    """Neighbouring depths span the plane that the normal says, wherever the surface is smooth."""
    camera = sample_cameras(6, 64, 48)[2]
    depth = np.load(small_sample / "depths" / "view_002.npy").astype(np.float64)
    normal = np.load(small_sample / "normals" / "view_002.npy").astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=2), 1, atol=1e-6)
    u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    local = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    rotation = camera.world_to_camera[:3, :3].numpy()
    xyz = (local * depth[..., None]) @ rotation + camera.position.numpy()
    floor = np.abs(xyz[..., 2]) < 1e-5
    assert floor.mean() > 0.2
    np.testing.assert_allclose(normal[floor], np.broadcast_to([0, 0, 1], normal[floor].shape), atol=1e-6)
    across = np.cross(xyz[1:-1, 2:] - xyz[1:-1, :-2], xyz[2:, 1:-1] - xyz[:-2, 1:-1])
    across /= -np.linalg.norm(across, axis=2, keepdims=True)
    agreement = np.abs((across * normal[1:-1, 1:-1]).sum(2))
    assert np.median(agreement) > 0.999


def test_same_seed_same_files(tmp_path):
    """Whatever thread renders which view."""
    folders = [
        write_sample(tmp_path / name, views=3, width=32, height=24, points=50, seed=seed, masks=True)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    read = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]
    assert read[0] == read[1]
    assert read[0].keys() == read[2].keys()
    assert read[0] != read[2]


def test_masks_hide_the_backdrop(tmp_path):
    folder = write_sample(tmp_path, views=2, width=48, height=36, points=40, masks=True, truth=False)
    assert not (folder / "depths").exists()
    camera = sample_cameras(2, 48, 36)[0]
    view = render_sample(build_world(0), camera)
    assert 0 < view.foreground.mean() < 1
    with Dataset(read_scene(folder)) as data:
        mask = data.photo(0).mask
        assert mask is not None
        np.testing.assert_array_equal(mask.numpy() == 255, view.foreground)
