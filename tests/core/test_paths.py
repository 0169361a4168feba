"""Camera paths."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import Camera, DataError, paths
from splat.core.rotations import quat_conjugate, quat_log, quat_multiply, quat_to_matrix


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


@st.composite
def camera_paths(draw: st.DrawFn, loop: bool | None = None) -> paths.CameraPath:
    """Two to six keyframes at uneven times, anywhere, turned any way."""
    count = draw(st.integers(2, 6))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    f64 = {"generator": g, "dtype": torch.float64}
    return paths.CameraPath(
        times=(0.2 + torch.rand(count, **f64)).cumsum(0),
        positions=torch.randn(count, 3, **f64),
        quats=torch.randn(count, 4, **f64),
        fovs=0.2 + torch.rand(count, **f64),
        width=16,
        height=12,
        loop=draw(st.booleans()) if loop is None else loop,
    )


def turn(path: paths.CameraPath, times: torch.Tensor) -> torch.Tensor:
    """[T, 12] position and rotation matrix, which do not tell a quaternion from its opposite."""
    positions, quats, _ = path.evaluate(times)
    return torch.cat([positions, quat_to_matrix(quats).flatten(1)], 1)


@settings(max_examples=25)
@given(camera_paths())
def test_a_curve_meets_its_keyframes_with_continuous_velocity(path):
    """Values are met to float64's rounding; one-sided derivatives agree but for the curve's own bend."""
    positions, quats, fovs = path.evaluate(path.times)
    assert torch.allclose(positions, path.positions, atol=1e-12)
    assert torch.allclose(quat_to_matrix(quats), quat_to_matrix(path.quats), atol=1e-9)
    assert torch.allclose(fovs, path.fovs, atol=1e-12)
    fine = torch.linspace(float(path.times[0]), float(path.times[0]) + path.duration, 997)
    assert torch.allclose(path.evaluate(fine.double())[1].norm(dim=1), torch.ones(997).double())

    # (f(t + h) - 2 f(t) + f(t - h)) / h is h f'' where f' is continuous, and its jump where it is not:
    # it must vanish with h.
    def kink(h: float) -> float:
        inner = path.times if path.loop else path.times[1:-1]
        if len(inner) == 0:
            return 0.0
        before = inner - h
        if path.loop:
            before[0] += path.duration
        sides = turn(path, inner + h) + turn(path, before) - 2 * turn(path, inner)
        return float(sides.abs().max()) / h

    # 1e-6: float64's rounding over h.
    assert kink(1e-5) <= 0.2 * kink(1e-4) + 1e-6


@settings(max_examples=20)
@given(camera_paths(loop=False))
def test_two_keyframes_are_joined_by_the_great_arc(path):
    """At a third of the time the camera has turned a third of the angle, about one axis."""
    pair = replace(path, times=path.times[:2], positions=path.positions[:2])
    pair = replace(pair, quats=path.quats[:2], fovs=path.fovs[:2])
    start, third, end = pair.evaluate(pair.times[0] + pair.duration * torch.tensor([0, 1 / 3, 1]).double())[1]
    whole = quat_log(quat_multiply(quat_conjugate(start), end))
    assert torch.allclose(quat_log(quat_multiply(quat_conjugate(start), third)), whole / 3, atol=1e-6)


def test_constant_speed():
    """Uneven keyframes walked evenly, in the same time; a turn in place keeps its own."""
    path = paths.CameraPath(
        times=torch.tensor([0.0, 1, 2, 4]).double(),
        positions=torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 5, 0]]).double(),
        quats=torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]).double(),
        fovs=torch.ones(4).double(),
        constant_speed=True,
    )
    uneven = replace(path, constant_speed=False)
    assert path.duration == uneven.duration == 4
    times = torch.linspace(0, 4, 401).double()
    speeds = path.evaluate(times)[0].diff(dim=0).norm(dim=1) * 100
    # Six units in the three seconds that are not spent turning; frames beside the pause are part of both.
    middle = torch.cat([speeds[5:45], speeds[160:-5]])
    assert float(middle.max() - middle.min()) < 0.02 * float(middle.mean())
    assert uneven.evaluate(times)[0].diff(dim=0).norm(dim=1).max() * 100 > 1.3 * middle.mean()
    assert torch.allclose(path.evaluate(times[-1:])[0], path.positions[-1:])


@settings(max_examples=20)
@given(camera_paths())
def test_a_path_survives_its_file(path):
    again = paths.parse_path(path.to_json(), "path.json")
    times = torch.linspace(float(path.times[0]), float(path.times[0]) + path.duration, 50).double()
    assert torch.allclose(turn(path, times), turn(again, times), atol=1e-9)
    assert (again.width, again.height, again.fps, again.loop) == (16, 12, path.fps, path.loop)
