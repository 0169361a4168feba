"""Triangulation from known poses: exact where the rays are, robust where one is not, silent where they do not meet."""

from __future__ import annotations

import math

import pytest
import torch

from splat.core import Camera
from splat.data.scene import Observations
from splat.data.triangulation import MIN_ANGLE, triangulate

FOCAL = 500.0


def ring(count: int, offset: float = 0.0) -> list[Camera]:
    """Cameras 4 units from (offset, 0, 0), 10 degrees apart, looking at it."""
    middle = torch.tensor([offset, 0.0, 0.0], dtype=torch.float64)
    cameras = []
    for index in range(count):
        angle = math.radians(10 * index)
        place = middle + 4 * torch.tensor(
            [math.sin(angle), 0.1 * index, -math.cos(angle)], dtype=torch.float64
        )
        up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        camera = Camera.look_at(place, middle, up, width=400, height=300, field_of_view=math.radians(45))
        cameras.append(Camera(400, 300, FOCAL, FOCAL, 200, 150, camera.world_to_camera))
    return cameras


def observed(xyz: torch.Tensor, cameras: list[Camera]) -> Observations:
    """Every camera sees every point."""
    rows = []
    for frame, camera in enumerate(cameras):
        local = xyz @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
        number = torch.arange(len(xyz))
        rows.append((torch.full_like(number, frame), number, local[:, :2] / local[:, 2:]))
    return Observations(*(torch.cat(column) for column in zip(*rows, strict=True)))


def cloud(count: int = 50, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
    return xyz + torch.tensor([offset, 0, 0], dtype=torch.float64)


@pytest.mark.parametrize("views", [2, 3, 7])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_exact_rays_give_exact_points(views, offset):
    cameras, xyz = ring(views, offset), cloud(offset=offset)
    found = triangulate(observed(xyz, cameras), cameras)
    assert len(found) == len(xyz)
    # float64 resolves 1e5 to 1.5e-11, which a ray of 4 units multiplies by at most 1 / sin(10 degrees) = 6.
    assert (found.xyz - xyz).abs().max() < 1e-9
    assert found.error.max() < 1e-5
    assert found.tracks.offsets.diff().tolist() == [views] * len(xyz)


def test_an_observation_that_is_wrong_is_left_out():
    cameras, xyz = ring(5), cloud()
    seen = observed(xyz, cameras)
    seen.rays[seen.frames == 3] += torch.tensor([40 / FOCAL, -25 / FOCAL], dtype=torch.float64)
    found = triangulate(seen, cameras)
    assert len(found) == len(xyz)
    assert (found.xyz - xyz).abs().max() < 1e-9
    assert 3 not in found.tracks.frames.tolist()


def test_rays_that_do_not_meet_give_no_point():
    cameras, xyz = ring(2), cloud()
    seen = observed(xyz, cameras)
    # The baseline has a vertical part as well: 40 pixels of the second ray's height leave the epipolar line.
    seen.rays[seen.frames == 1] += torch.tensor([0, 40 / FOCAL], dtype=torch.float64)
    assert len(triangulate(seen, cameras)) == 0


def test_points_behind_a_camera_are_none():
    cameras, xyz = ring(2), cloud()
    behind = triangulate(observed(xyz - torch.tensor([0, 0, 20.0]), cameras), cameras)
    assert len(behind) == 0  # their rays meet, but behind both


def test_points_that_only_one_view_sees_and_nothing_at_all():
    cameras, xyz = ring(1), cloud()
    assert len(triangulate(observed(xyz, cameras), cameras)) == 0
    none = Observations(torch.empty(0).long(), torch.empty(0).long(), torch.empty(0, 2).double())
    assert len(triangulate(none, cameras)) == 0


def test_a_baseline_too_small_for_the_depth_gives_no_point():
    cameras = ring(2)
    ahead = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    baseline = float((cameras[0].position - cameras[1].position).norm())
    near, far = (ahead * baseline / (factor * MIN_ANGLE) for factor in (2.0, 0.5))
    assert len(triangulate(observed(near, cameras), cameras)) == 1
    assert len(triangulate(observed(far, cameras), cameras)) == 0
