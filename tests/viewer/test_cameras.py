"""Poses of the browser and ours, up, and where visitors stand at first."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from page import _looking
from scenes import mixed

from splat.core import Camera
from splat.raster import render
from splat.viewer.cameras import Pose, bulk, first_view, pivot, up_direction


def pose(position: tuple[float, ...], target: tuple[float, ...], size: tuple[int, int] = (100, 80)) -> Pose:
    at, to = np.array(position), np.array(target)
    return Pose(np.array(_looking(at, to, np.array([0.0, -1.0, 0.0]))), at, 1.0, to, *size)


def test_a_browsers_pose_is_the_same_camera() -> None:
    mine = pose((1.0, -2.0, -4.0), (0.2, 0.1, 0.0)).camera(100, 80)
    ours = Camera.look_at(
        torch.tensor([1.0, -2.0, -4.0]),
        torch.tensor([0.2, 0.1, 0.0]),
        torch.tensor([0.0, -1.0, 0.0]),
        width=100,
        height=80,
        field_of_view=2 * math.atan(math.tan(0.5) * 100 / 80),  # viser's is the vertical one
    )
    assert torch.allclose(mine.world_to_camera, ours.world_to_camera, atol=1e-5)
    assert (mine.fx, mine.fy, mine.cx, mine.cy) == pytest.approx((ours.fx, ours.fy, ours.cx, ours.cy))
    mine.validate()


def test_columns_show_the_middle_of_the_same_view() -> None:
    """Two columns of a canvas twice as wide: each the picture of a canvas of its own size."""
    scene = mixed(40).to(torch.float32)
    view = pose((0.5, -0.4, -5.0), (0.0, 0.0, 0.0))
    alone = render(scene, view.camera(50, 80)).image
    for column in (0, 1):
        assert torch.equal(render(scene, view.camera(100, 80, column, 2)).image, alone)
    widths = [view.camera(101, 80, column, 2).width for column in (0, 1)]
    assert sum(widths) == 101


def cameras(tilts: list[float], up: torch.Tensor, roll: float = 0.0) -> list[Camera]:
    """Cameras around the origin, held level but for a roll, at different heights."""
    up = up / up.norm()
    side = torch.linalg.cross(up, torch.tensor([0.3, 0.5, 0.8]))
    side = side / side.norm()
    other = torch.linalg.cross(up, side)
    out = []
    for i, tilt in enumerate(tilts):
        angle = 2 * math.pi * i / len(tilts)
        outward = math.cos(angle) * side + math.sin(angle) * other
        position = 4 * (math.cos(tilt) * outward + math.sin(tilt) * up)
        camera = Camera.look_at(position, torch.zeros(3), up, width=40, height=30, field_of_view=1.0)
        c, s = math.cos(roll * (-1) ** i), math.sin(roll * (-1) ** i)
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        pose = camera.world_to_camera.clone()
        pose[:3] = turn @ pose[:3]
        out.append(camera.with_pose(pose))
    return out


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 2.0, -0.5)])
def test_up_is_where_level_cameras_point_it(up: tuple[float, float, float]) -> None:
    expected = torch.tensor(up) / torch.tensor(up).norm()
    # All looking down from above: their own ups lean, each its own way, or all alike.
    found = up_direction(cameras([0.6] * 9, expected, roll=0.05))
    assert float(found @ expected) > math.cos(math.radians(2))
    some = cameras([0.6] * 9, expected)[:3]  # from one side
    assert float(up_direction(some) @ expected) > math.cos(math.radians(2))


def test_up_of_cameras_that_all_look_one_way_is_their_own() -> None:
    up = torch.tensor([0.0, -1.0, 0.0])
    one = cameras([0.3] * 4, up)[0]
    found = up_direction([one, one, one])
    assert torch.allclose(found, -one.world_to_camera[1, :3], atol=1e-5)
    assert torch.equal(up_direction([]), up)


def test_without_photographs_the_whole_scene_is_in_front() -> None:
    g = torch.Generator().manual_seed(0)
    scene = mixed(400).to(torch.float32)
    scene.means = torch.rand(400, 3, generator=g) - 0.5 + torch.tensor([10.0, 5.0, -3.0])
    up = torch.tensor([0.0, 0.0, 1.0])
    camera = first_view([], scene, up)
    centre, radius = bulk(scene.means)
    assert torch.allclose(centre, torch.tensor([10.0, 5.0, -3.0]), atol=0.2)
    assert 0.3 < radius < 0.9
    seen = scene.means @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    x = seen[:, 0] / seen[:, 2] * camera.fx + camera.cx
    y = seen[:, 1] / seen[:, 2] * camera.fy + camera.cy
    inside = (x > 0) & (x < camera.width) & (y > 0) & (y < camera.height) & (seen[:, 2] > 0)
    assert inside.float().mean() > 0.8
    assert float(-camera.world_to_camera[1, :3] @ up) > 0.7  # upright
    first_view([], None, up).validate()
    first_view([], scene.select(torch.zeros(0, dtype=torch.long)), up).validate()


def test_the_pivot_lies_as_far_ahead_as_what_is_seen() -> None:
    scene = mixed(300).to(torch.float32)
    scene.means = 0.1 * scene.means + torch.tensor([0.0, 0.0, 7.0])
    scene.means[0] = torch.tensor([0.0, 0.0, 400.0])  # behind it, far off
    camera = pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)).camera(100, 80)
    assert torch.allclose(pivot(camera, scene), torch.tensor([0.0, 0.0, 7.0]), atol=0.3)
    away = pose((0.0, 0.0, 0.0), (0.0, 0.0, -1.0)).camera(100, 80)
    assert float(pivot(away, scene) @ away.forward) > 0
