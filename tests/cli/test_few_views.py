"""Photographs that cannot show depth, through the command: refused or warned of, with what to shoot instead."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splat.core import Camera

SIZE = (64, 48)


def looking(position: tuple[float, float, float], target: tuple[float, float, float]) -> Camera:
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    place, towards = (torch.tensor(v, dtype=torch.float64) for v in (position, target))
    return Camera.look_at(place, towards, up, width=SIZE[0], height=SIZE[1], field_of_view=math.radians(50))


def photographs(folder: Path, count: int) -> list[str]:
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        pixels = generator.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    return names


def transforms(folder: Path, cameras: list[Camera]) -> Path:
    """A dataset of poses without points."""
    frames = []
    for name, camera in zip(photographs(folder, len(cameras)), cameras, strict=True):
        pose = camera.camera_to_world @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
        frames.append({"file_path": f"images/{name}", "transform_matrix": pose.tolist()})
    first = cameras[0]
    head = {"fl_x": first.fx, "fl_y": first.fy, "cx": first.cx, "cy": first.cy, "w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms.json").write_text(json.dumps({**head, "frames": frames}))
    return folder


def colmap(folder: Path, cameras: list[Camera], seen_by: list[int]) -> Path:
    """A COLMAP model with 60 points around (5, 0, 0) that the cameras of `seen_by` observe."""
    import pycolmap

    names = photographs(folder, len(cameras))
    (folder / "sparse" / "0").mkdir(parents=True)
    first, model = cameras[0], pycolmap.Reconstruction()
    params = [first.fx, first.fy, first.cx, first.cy]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=SIZE[0], height=SIZE[1], params=params, camera_id=1)
    )
    xyz = np.random.default_rng(1).uniform((4, -1, -1), (6, 1, 1), (60, 3))
    for number, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        pose = camera.world_to_camera.numpy()
        local = xyz @ pose[:3, :3].T + pose[:3, 3]
        pixels = local[:, :2] / local[:, 2:] * (first.fx, first.fy) + (first.cx, first.cy)
        image = pycolmap.Image(name, pixels if number in seen_by else np.empty((0, 2)), 1, number + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    for index, place in enumerate(xyz):
        track = pycolmap.Track()
        for number in seen_by:
            track.add_element(number + 1, index)
        model.add_point3D(place, track, np.array([90, 90, 90], np.uint8))
    model.write_binary(str(folder / "sparse" / "0"))
    return folder


def trained(splat, data: Path, tmp_path: Path, *flags):
    return splat("train", data, "--steps", 1, "--init.count", 50, "--out", tmp_path / "run", *flags)


def test_a_single_view_is_refused(splat, tmp_path):
    data = transforms(tmp_path / "one", [looking((0, 0, 0), (1, 0, 0))])
    done = trained(splat, data, tmp_path)
    assert done.code == 3
    assert str(data) in done.first
    assert "a scene needs at least 2 posed photographs" in done.first


def test_pure_rotation_is_refused(splat, tmp_path):
    here = (2.0, 1.0, 0.5)
    turned = [looking(here, (here[0] + 1, here[1] + 0.1 * k, here[2])) for k in range(4)]
    data = transforms(tmp_path / "turning", turned)
    done = trained(splat, data, tmp_path)
    assert done.code == 3
    assert str(data) in done.first
    assert "all 4 training views are taken from one place" in done.first
    assert "walking around" in done.first
    assert not (tmp_path / "run").exists()


def test_views_that_see_nothing_in_common_are_refused(splat, tmp_path):
    data = transforms(tmp_path / "apart", [looking((0, 0, 0), (-1, 0, 0)), looking((3, 0, 0), (4, 0, 0))])
    done = trained(splat, data, tmp_path)
    assert done.code == 3
    assert "no two of the 2 training views see anything in common" in done.first
    assert "in three photographs" in done.first


def test_parallel_views_side_by_side_are_no_such_case(splat, tmp_path):
    """Far away they see the same, though their axes never meet."""
    data = transforms(tmp_path / "aside", [looking((0, y, 0), (5, y, 0)) for y in (0.0, 1.0)])
    done = trained(splat, data, tmp_path)
    assert done.code == 0, done.err
    assert "training views" not in (tmp_path / "run" / "log.txt").read_text()


@pytest.fixture(scope="module")
def close(tmp_path_factory) -> Path:
    """Three views within 2 cm of each other, 5 m from the points, which the first two observe. Not to be changed."""
    cameras = [looking((0, 0.01 * k, 0), (5, 0.01 * k, 0)) for k in range(3)]
    return colmap(tmp_path_factory.mktemp("close") / "data", cameras, [0, 1])


def test_a_path_too_short_for_the_depth_is_warned_of(splat, close, tmp_path):
    done = trained(splat, close, tmp_path)
    assert done.code == 0, done.err
    assert "which hardly shows depth; step aside by a tenth of the distance" in done.out


def test_views_without_common_points_are_warned_of(splat, close, tmp_path):
    done = trained(splat, close, tmp_path, "--views", 2)  # the first and the last
    assert done.code == 0, done.err
    assert "warning" in done.out
    assert "no point is seen by two of the 2 training views; shoot so that" in done.out
    assert "begins with random, as nothing else gives enough: 50 points" in done.out
