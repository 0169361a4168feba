"""Orbits around a scene."""

from __future__ import annotations

import math

import pytest
import torch

from splat.core import Camera, orbits


def sees(camera: Camera, point: torch.Tensor) -> torch.Tensor:
    """[2] pixel at which `camera` sees `point`."""
    x, y, z = (camera.world_to_camera.double() @ torch.cat([point.double(), torch.ones(1)]))[:3]
    assert z > 0
    return torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])


def ring(count: int, radius: float, height: float) -> list[Camera]:
    """Cameras on a circle around (1, 2, 3), -y up, looking at its centre from above."""
    centre = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    out = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        position = centre + torch.tensor([radius * math.cos(angle), -height, radius * math.sin(angle)])
        up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
        out.append(Camera.look_at(position, centre, up, width=40, height=30, field_of_view=0.9))
    return out


def test_orbit_follows_the_cameras():
    """Around what they look at, at their distance and height, and upright."""
    seen = orbits.orbit(ring(7, 2.0, 1.0), 12)
    assert len(seen) == 12
    for camera in seen:
        offset = camera.position - torch.tensor([1.0, 2, 3])
        # focus() is damped by 1e-3 towards a point one spread away: within a hundredth of the radius.
        assert float(offset[[0, 2]].norm()) == pytest.approx(2, rel=0.02)
        assert float(offset[1]) == pytest.approx(-1, rel=0.03)
        assert torch.allclose(
            sees(camera, torch.tensor([1.0, 2, 3])), torch.tensor([20.0, 15]).double(), atol=0.5
        )
        assert float(camera.world_to_camera[1, 1]) > 0  # down in the picture is down in the world


def test_orbit_of_parallel_cameras_is_finite():
    """A forward walk: all axes parallel, no point is nearest to them all."""
    cameras = []
    for i in range(5):
        pose = torch.eye(4)
        pose[2, 3] = -float(i)
        cameras.append(Camera(40, 30, 30.0, 30.0, 20.0, 15.0, pose))
    for camera in orbits.orbit(cameras, 6):
        assert bool(torch.isfinite(camera.world_to_camera).all())


def test_around_shows_most_of_a_scene():
    means = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([10.0, 0, 5])
    cameras = orbits.orbit(orbits.around(means, 64, 64), 8)
    for camera in cameras:
        inside = [(sees(camera, m) >= 0).all() and (sees(camera, m) <= 64).all() for m in means[:100]]
        assert sum(map(bool, inside)) >= 75
