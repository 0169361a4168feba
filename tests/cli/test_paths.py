"""Camera paths and orbits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from splat.cli import paths
from splat.core import Camera, DataError
from splat.core.rotations import quat_to_matrix


def write(folder: Path, **document) -> Path:
    file = folder / "path.json"
    file.write_text(json.dumps(document))
    return file


def sees(camera: Camera, point: torch.Tensor) -> torch.Tensor:
    """[2] pixel at which `camera` sees `point`."""
    x, y, z = (camera.world_to_camera.double() @ torch.cat([point.double(), torch.ones(1)]))[:3]
    assert z > 0
    return torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])


def test_keyframes_are_met(tmp_path):
    """The path passes through its keyframes, however they are written; look_at centres its target."""
    turned = quat_to_matrix(torch.tensor([0.9, 0.1, -0.2, 0.3], dtype=torch.float64))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = turned, torch.tensor([3.0, 0, 1])
    file = write(
        tmp_path,
        width=64,
        height=48,
        fps=10,
        keyframes=[
            {"time": 0, "position": [0, -1, -4], "look_at": [0.5, 0, 1], "fov": 40},
            {"time": 1, "position": [1, 2, 3], "quaternion": [0.9, 0.1, -0.2, 0.3]},
            {"time": 2.5, "camera_to_world": matrix.tolist()},
        ],
    )
    path = paths.read_path(file)
    frames = path.frames()
    assert len(frames) == 26
    assert [frames[0].width, frames[0].height] == [64, 48]
    assert torch.allclose(
        sees(frames[0], torch.tensor([0.5, 0, 1])), torch.tensor([32.0, 24.0]).double(), atol=1e-4
    )
    assert frames[0].fy == pytest.approx(24 / math.tan(math.radians(20)))
    assert torch.allclose(frames[10].camera_to_world[:3, 3], torch.tensor([1.0, 2, 3]), atol=1e-5)
    assert torch.allclose(frames[10].camera_to_world[:3, :3], turned.float(), atol=1e-5)
    assert torch.allclose(frames[25].camera_to_world, matrix.float(), atol=1e-5)


def test_every_frame_is_a_rigid_pose_and_moves_smoothly(tmp_path):
    file = write(
        tmp_path,
        fps=30,
        keyframes=[
            {"time": t, "position": [math.sin(t), 0, -math.cos(t)], "look_at": [0, 0.1, 0]} for t in range(6)
        ],
    )
    frames = paths.read_path(file).frames()
    poses = torch.stack([f.world_to_camera[:3, :3] for f in frames])
    assert torch.allclose(poses @ poses.transpose(1, 2), torch.eye(3).expand_as(poses), atol=1e-5)
    steps = torch.stack([f.position for f in frames]).diff(dim=0).norm(dim=1)
    # The keyframes lie on a circle walked at 1 unit a second: no frame may jump or stand still.
    assert steps.max() < 2 / 30
    assert steps.min() > 0.3 / 30


def test_loop_closes_smoothly(tmp_path):
    """Around a square every side is walked alike: the seam, too, where the quaternion comes back negated."""
    corners = [[1, 0, 0], [0, 0, 1], [-1, 0, 0], [0, 0, -1]]
    file = write(
        tmp_path,
        fps=20,
        loop=True,
        keyframes=[{"time": i, "position": p, "look_at": [0, 0, 0]} for i, p in enumerate(corners)],
    )
    frames = paths.read_path(file).frames()
    assert len(frames) == 80
    centres = torch.stack([f.position for f in [*frames, frames[0]]])
    turned = torch.stack([f.forward for f in [*frames, frames[0]]])
    for values in (centres, turned):
        steps = values.diff(dim=0).norm(dim=1).view(4, 20)
        assert torch.allclose(steps, steps[:1].expand(4, 20), atol=1e-5)
        assert (steps > 0).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "splat render --help"),
        ("{}", "'keyframes' is missing"),
        ('{"keyframes": []}', "empty"),
        ('{"keyframes": [{"position": [0, 0]}]}', "keyframe 0: position"),
        ('{"keyframes": [{"position": [0, 0, 0]}]}', "look_at, quaternion and camera_to_world"),
        ('{"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 0]}]}', "target"),
        ('{"keyframes": [{"position": [0, 0, 0], "quaternion": [0, 0, 0, 0]}]}', "quaternion is zero"),
        ('{"keyframes": [{"camera_to_world": [[1, 2], [3, 4]]}]}', "4x4"),
        ('{"keyframes": [{"position": [0, 0, NaN], "look_at": [0, 0, 1]}]}', "finite"),
        ('{"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1], "fov": 190}]}', "fov"),
        ('{"fps": 0, "keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1]}]}', "fps"),
        (
            '{"keyframes": [{"time": 1, "position": [0, 0, 0], "look_at": [0, 0, 1]},'
            ' {"time": 1, "position": [0, 0, 0], "look_at": [0, 0, 1]}]}',
            "do not increase",
        ),
    ],
)
def test_a_bad_path_is_named(tmp_path, text, said):
    file = tmp_path / "path.json"
    file.write_text(text)
    with pytest.raises(DataError) as error:
        paths.read_path(file)
    first = str(error.value).splitlines()[0]
    assert said in first
    assert str(file) in first


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
    seen = paths.orbit(ring(7, 2.0, 1.0), 12)
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
    for camera in paths.orbit(cameras, 6):
        assert bool(torch.isfinite(camera.world_to_camera).all())


def test_around_shows_most_of_a_scene():
    means = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([10.0, 0, 5])
    cameras = paths.orbit(paths.around(means, 64, 64), 8)
    for camera in cameras:
        inside = [(sees(camera, m) >= 0).all() and (sees(camera, m) <= 64).all() for m in means[:100]]
        assert sum(map(bool, inside)) >= 75
