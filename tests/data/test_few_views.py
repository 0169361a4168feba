"""Runs on a few views of a dataset: which ones, and that the others tell them nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splat.core import UsageError
from splat.data import Dataset, read_scene
from splat.data.triangulation import triangulate


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    from splat.data.sample import write_sample

    folder = tmp_path_factory.mktemp("few") / "scene"
    return read_scene(write_sample(folder, views=12, width=64, height=48, points=300, samples=1, truth=False))


def test_views_are_spread_evenly_over_those_that_train(scene):
    with Dataset(scene, holdout=True, views=3) as data:  # 0 and 8 are held out
        assert data.test == [0, 8]
        assert data.train == [1, 5, 11]  # the first, number round(4.5) = 4 and the last of the ten others
        assert data.notes[0].endswith("view_001.png, view_005.png, view_011.png")
    with Dataset(scene, holdout=True, views=4, test_every=3) as data:
        assert data.test == [0, 3, 6, 9]
        assert data.train == [1, 4, 8, 11]
    with Dataset(scene, views=12) as data:
        assert data.train == list(range(12))
    with pytest.raises(UsageError, match="has 10 views to train on, not 11"):
        Dataset(scene, holdout=True, views=11)


def test_points_are_triangulated_from_the_training_views(scene):
    with Dataset(scene, holdout=True, views=4) as data:
        points = data.points
        assert points is not None
        own = set(data.train)
        counts = torch.tensor(
            [sum(f in own for f in scene.points.tracks.of(p).tolist()) for p in range(len(scene.points))]
        )
        # Each point that two of the views see is there: the sample's observations are exact, and 3 of 12 steps of a
        # ring around the scene are no small angle.
        assert len(points) == int((counts >= 2).sum()) < len(scene.points)
        assert (points.xyz - scene.points.xyz[counts >= 2]).abs().max() < 1e-6
        assert set(points.tracks.frames.tolist()) <= own


def test_nothing_of_the_other_views_or_of_the_model_reaches_the_points(scene):
    """Other poses, other photographs, other positions, colours and errors of the points: the same outcome."""
    with Dataset(scene, holdout=True, views=4) as data:
        before, own, extent = data.points, set(data.train), data.extent
    frames = []
    for index, frame in enumerate(scene.frames):
        if index not in own:
            pose = frame.camera.world_to_camera.clone()
            pose[:3, 3] += 0.5
            frame = replace(frame, camera=frame.camera.with_pose(pose), path=frame.path.with_name("gone.png"))
        frames.append(frame)
    points = replace(scene.points, xyz=scene.points.xyz + 1, rgb=255 - scene.points.rgb, error=None)
    with Dataset(replace(scene, frames=frames, points=points), holdout=True, views=4) as data:
        assert torch.equal(data.points.xyz, before.xyz)
        assert torch.equal(data.points.rgb, before.rgb)
        assert data.extent == extent


def test_colours_come_from_the_training_views(scene):
    with Dataset(scene, holdout=True, views=4) as data:
        points = data.points
        expected = []
        for point in range(20):
            colours = []
            for index in points.tracks.of(point).tolist():
                camera = scene.frames[index].camera
                local = camera.world_to_camera[:3, :3] @ points.xyz[point] + camera.world_to_camera[:3, 3]
                x, y, _ = (camera.matrix.double() @ (local / local[2])).tolist()
                colours.append(data.photo(index).image[int(y), int(x)].float())
            expected.append(torch.stack(colours).mean(0))
    assert (points.rgb[:20].float() - torch.stack(expected)).abs().max() <= 0.5  # rounded to whole levels


def test_text_and_binary_models_observe_the_same(scene, tmp_path):
    import pycolmap

    text = tmp_path / "text"
    (text / "sparse" / "0").mkdir(parents=True)
    (text / "images").symlink_to(scene.root / "images")
    pycolmap.Reconstruction(str(scene.root / "sparse" / "0")).write_text(str(text / "sparse" / "0"))
    ours, theirs = (read.observe([1, 5]) for read in (scene, read_scene(text)))
    assert len(ours) > 100
    assert torch.equal(ours.frames, theirs.frames)
    assert torch.equal(ours.points, theirs.points)
    assert (ours.rays - theirs.rays).abs().max() < 1e-6  # pixels are written with six decimals or more


def test_points_of_unknown_origin_are_left_out(scene):
    with Dataset(replace(scene, observe=None), views=3) as data:
        assert data.points is None
        assert "left out" in data.notes[1]


def test_lens_distortion_is_taken_out_of_the_observations(shared_data):
    """Fox has 7 pixels of distortion near its corners; COLMAP's own mean error there is 0.94 pixels."""
    fox = read_scene(shared_data("fox"))
    points = triangulate(fox.observe([1, 10, 20, 30, 40]), [frame.camera for frame in fox.frames])
    assert len(points) > 1000
    assert points.error.mean() < 0.94
