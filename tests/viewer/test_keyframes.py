"""Keyframes as they are edited: places, times, and paths there and back."""

from __future__ import annotations

import math

import pytest
import torch

from splat.core import Camera
from splat.viewer.keyframes import Keyframe, Keyframes


def frame(x: float, seconds: float = 2.0) -> Keyframe:
    place, quat = torch.tensor([x, 0.0, 0.0]).double(), torch.tensor([1.0, 0, 0, 0]).double()
    return Keyframe(place, quat, 0.9, seconds)


def places(keys: Keyframes) -> list[float]:
    return [float(key.position[0]) for key in keys.frames]


def test_editing():
    keys = Keyframes()
    for x in (0, 1, 2):
        keys.add(frame(x))
    assert (places(keys), keys.at) == ([0, 1, 2], 2)
    keys.at = 0
    keys.add(frame(0.5))
    assert (places(keys), keys.at) == ([0, 0.5, 1, 2], 1)
    keys.move(2)
    assert (places(keys), keys.at) == ([0, 1, 2, 0.5], 3)
    keys.move(5)
    keys.move(-9)
    assert (places(keys), keys.at) == ([0.5, 0, 1, 2], 0)
    keys.wait(7.0)
    keys.replace(frame(9))
    assert (places(keys)[0], keys.frames[0].seconds) == (9, 7.0)
    for _ in range(3):
        keys.remove()
    assert (places(keys), keys.at) == ([2], 0)
    keys.remove()
    assert (len(keys), keys.at) == (0, 0)
    with pytest.raises(ValueError, match="no keyframe"):
        keys.path()


def test_a_path_and_back():
    keys = Keyframes([frame(0, 1.0), frame(1, 3.0), frame(2, 2.0)])
    path = keys.path(64, 48, 10, offset=torch.tensor([5.0, 0, 0]).double())
    assert path.times.tolist() == [0, 1, 4]
    assert path.positions[:, 0].tolist() == [5, 6, 7]
    again = Keyframes.of(path, torch.tensor([-5.0, 0, 0]).double())
    assert places(again) == [0, 1, 2]
    assert [key.seconds for key in again.frames] == [1, 3, 2]


def test_a_keyframe_stands_as_the_camera_does():
    up = torch.tensor([0.0, -1, 0])
    camera = Camera.look_at(
        torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 0, 1]), up, width=96, height=54, field_of_view=0.8
    )
    again = Keyframes([Keyframe.of(camera)]).camera(0)
    assert torch.allclose(again.world_to_camera, camera.world_to_camera, atol=1e-6)
    assert 2 * math.atan(again.height / (2 * again.fy)) == pytest.approx(2 * math.atan(54 / (2 * camera.fy)))
