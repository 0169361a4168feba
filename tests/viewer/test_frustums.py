"""Frustums: what is drawn is what a camera sees, and a click finds the camera it meets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from splat.core import Camera
from splat.viewer import frustums

GREY = 83  # 0.6 as linear light: 0.6 ** 2.2 * 255


def ring(count: int = 6, radius: float = 3.0) -> list[Camera]:
    """Cameras around the origin that look at it, off-centre principal points."""
    out = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        place = torch.tensor([radius * math.cos(angle), -1.0, radius * math.sin(angle)])
        camera = Camera.look_at(
            place, torch.zeros(3), torch.tensor([0.0, -1, 0]), width=64, height=48, field_of_view=0.9
        )
        out.append(Camera(64, 48, camera.fx, 1.1 * camera.fy, 28.0, 25.0, camera.world_to_camera))
    return out


def test_corners_are_the_pictures_corners():
    """Each camera projects its own corners onto those of its picture, at the depth that was asked for."""
    cameras = ring()
    points = frustums.corners(cameras, 0.7)
    for camera, own in zip(cameras, points, strict=True):
        pose = camera.world_to_camera.double()
        seen = own @ pose[:3, :3].T + pose[:3, 3]
        assert torch.allclose(seen[0], torch.zeros(3).double(), atol=1e-6)
        assert torch.allclose(seen[1:, 2], torch.full((5,), 0.7).double(), atol=1e-6)
        pixel = seen[1:5, :2] / seen[1:5, 2:]
        pixel = pixel * torch.tensor([camera.fx, camera.fy]) + torch.tensor([camera.cx, camera.cy])
        expected = torch.tensor([[0, 0], [64, 0], [64, 48], [0, 48]]).double()
        assert torch.allclose(pixel, expected, atol=1e-4)


def test_segments_and_colours_go_together():
    cameras = ring(5)
    drawn = frustums.segments(frustums.corners(cameras, 0.5))
    assert drawn.shape == (5 * frustums.SEGMENTS, 2, 3)
    losses = torch.tensor([0.1, 0.2, float("nan"), 0.4, 0.3])
    colours = frustums.colours(losses, chosen=3).reshape(5, frustums.SEGMENTS, 2, 3)
    assert colours.dtype == np.uint8
    assert (colours == colours[:, :1, :1]).all()
    low, high, unknown, chosen = (colours[i, 0, 0].astype(int) for i in (0, 4, 2, 3))
    assert low[2] > low[0]  # blue
    assert high[0] > high[2]  # red
    assert unknown.tolist() == [GREY] * 3
    assert chosen.tolist() == [255] * 3


def test_without_any_loss_all_are_grey():
    colours = frustums.colours(torch.full((3,), float("nan")))
    assert (colours == GREY).all()


def test_depth_goes_by_the_distances():
    assert frustums.depth_for(ring(6, 3.0)) == pytest.approx(1.5)  # a hexagon's side is its radius
    assert frustums.depth_for(ring(1) * 4) == 0.1


def test_cameras_around_the_visitor_are_left_out():
    cameras = ring()
    points = frustums.corners(cameras, 0.5)
    hidden = frustums.too_near(points, cameras[2].position.double())
    assert hidden.tolist() == [False, False, True, False, False, False]
    drawn = frustums.segments(points, hidden).reshape(6, frustums.SEGMENTS, 2, 3)
    lengths = np.linalg.norm(drawn[:, :, 1] - drawn[:, :, 0], axis=2).sum(1)
    assert (lengths > 0).tolist() == [True, True, False, True, True, True]


def test_a_click_meets_the_nearest_camera():
    cameras = ring()
    points = frustums.corners(cameras, 0.5)
    for number, own in enumerate(points):
        middle = own[:5].mean(0)
        outward = torch.nn.functional.normalize(middle * torch.tensor([1.0, 0, 1]), dim=0)
        origin = middle + 5 * outward
        # From outside through the middle: the first pyramid in the way, although another lies behind it.
        assert frustums.met(points, origin.tolist(), (-outward).tolist()) == number
        assert frustums.met(points, origin.tolist(), outward.tolist()) is None
    assert frustums.met(points, [0.0, 50, 0], [1.0, 0, 0]) is None
    assert frustums.met(frustums.corners([], 0.5), [0.0, 0, 0], [1.0, 0, 0]) is None
