"""Camera paths: keyframes from a JSON file, smoothly joined, and orbits around a scene."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.core import Camera, DataError
from splat.core.rotations import matrix_to_quat, quat_to_matrix


@dataclass(frozen=True)
class CameraPath:
    """Keyframes of a moving camera.

    Attributes:
        times: [K] seconds, increasing.
        positions: [K, 3] float64, world units.
        quats: [K, 4] float64, camera to world, wxyz, neighbours in one hemisphere.
        fovs: [K] vertical fields of view, radians.
        width, height: pixels.
        fps: frames a second.
        loop: whether the last keyframe leads back to the first (which then comes again at the end).
    """

    times: Tensor
    positions: Tensor
    quats: Tensor
    fovs: Tensor
    width: int
    height: int
    fps: float
    loop: bool = False

    def frames(self) -> list[Camera]:
        """One camera a frame, from the first keyframe to the last (for a loop, short of the repeated one)."""
        duration = float(self.times[-1] - self.times[0])
        count = max(1, round(duration * self.fps) + (0 if self.loop else 1))
        return [self.at(float(self.times[0]) + i / self.fps, f"{i:05d}") for i in range(count)]

    def at(self, time: float, name: str = "") -> Camera:
        """The camera at `time`, seconds."""
        values = torch.cat([self.positions, self.quats, self.fovs[:, None]], 1)
        value = _hermite(self.times, values, time, self.loop)
        focal = 0.5 * self.height / math.tan(0.5 * float(value[7]))
        return _camera(quat_to_matrix(value[3:7]), value[:3], self.width, self.height, focal, name)


def _camera(rotation: Tensor, position: Tensor, width: int, height: int, focal: float, name: str) -> Camera:
    """A camera from its axes in the world ([3, 3], columns) and its position [3]."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ position
    return Camera(width, height, focal, focal, width / 2, height / 2, pose.float(), name)


def _hermite(times: Tensor, values: Tensor, time: float, loop: bool) -> Tensor:
    """[D] cubic Hermite interpolation of [K, D] values, Catmull-Rom tangents for uneven times.

    Passes through every keyframe. Quaternions are interpolated like numbers and normalised later: with
    neighbours in one hemisphere this stays close to the great arc.
    """
    k = times.shape[0]
    if k == 1:
        return values[0]
    time = min(max(time, float(times[0])), float(times[-1]))
    i = min(int(torch.searchsorted(times, torch.tensor(time, dtype=times.dtype), right=True)) - 1, k - 2)

    # In a loop the last keyframe is the first again, but its quaternion may be the opposite one.
    same = torch.ones_like(values[0])
    if loop and float(values[0, 3:7] @ values[-1, 3:7]) < 0:
        same[3:7] = -1

    def tangent(j: int) -> Tensor:
        if 0 < j < k - 1:
            return (values[j + 1] - values[j - 1]) / (times[j + 1] - times[j - 1])
        if loop:
            span = times[1] - times[0] + times[-1] - times[-2]
            first = (values[1] - same * values[-2]) / span
            return first if j == 0 else same * first
        a, b = (0, 1) if j == 0 else (k - 2, k - 1)
        return (values[b] - values[a]) / (times[b] - times[a])

    h = times[i + 1] - times[i]
    u = (time - times[i]) / h
    u2, u3 = u * u, u * u * u
    return (
        (2 * u3 - 3 * u2 + 1) * values[i]
        + (u3 - 2 * u2 + u) * h * tangent(i)
        + (3 * u2 - 2 * u3) * values[i + 1]
        + (u3 - u2) * h * tangent(i + 1)
    )


def _looking(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """[3, 3] axes of a camera at `position` that looks at `target`: columns right, down, forward."""
    camera = Camera.look_at(position, target, up, width=1, height=1, field_of_view=1.0)
    return camera.world_to_camera[:3, :3].T


def read_path(file: Path) -> CameraPath:
    """Read a camera path; DataError says which keyframe lacks what."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot read the camera path: {error.strerror}; check the name") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not JSON: {error}; splat render --help shows a camera path") from error
    try:
        return _parse_path(document)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{file}: {reason}; splat render --help shows a camera path") from error


def _parse_path(document: dict[str, Any]) -> CameraPath:
    frames = document["keyframes"]
    if not frames:
        raise ValueError("keyframes is empty")
    up = _vector(document.get("up", [0, -1, 0]), 3, "up")
    loop = bool(document.get("loop", False))
    times: list[float] = []
    positions: list[Tensor] = []
    quats: list[Tensor] = []
    fovs: list[float] = []
    for i, frame in enumerate(frames):
        where = f"keyframe {i}"
        times.append(float(frame.get("time", i)))
        position, rotation = _placed(frame, up, where)
        positions.append(position)
        quat = torch.nn.functional.normalize(matrix_to_quat(rotation), dim=0)
        quats.append(-quat if quats and float(quat @ quats[-1]) < 0 else quat)
        fovs.append(math.radians(float(frame.get("fov", 50))))
        if not 0 < fovs[-1] < math.pi:
            raise ValueError(f"{where}: fov {frame['fov']} is not between 0 and 180 degrees")
    if loop and len(frames) > 1:
        times.append(times[-1] + (times[-1] - times[0]) / (len(frames) - 1))
        positions.append(positions[0])
        quats.append(-quats[0] if float(quats[0] @ quats[-1]) < 0 else quats[0])
        fovs.append(fovs[0])
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise ValueError("the times of the keyframes do not increase")
    width, height, fps = (
        int(document.get("width", 960)),
        int(document.get("height", 540)),
        document.get("fps", 30),
    )
    if width < 1 or height < 1 or not float(fps) > 0:
        raise ValueError(f"width {width}, height {height} and fps {fps} must be positive")
    return CameraPath(
        torch.tensor(times, dtype=torch.float64),
        torch.stack(positions),
        torch.stack(quats),
        torch.tensor(fovs, dtype=torch.float64),
        width,
        height,
        float(fps),
        loop and len(frames) > 1,
    )


def _placed(frame: dict[str, Any], up: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Position [3] and axes [3, 3] of a keyframe."""
    if "camera_to_world" in frame:
        matrix = torch.tensor(frame["camera_to_world"], dtype=torch.float64)
        if matrix.shape not in ((4, 4), (3, 4)) or not bool(torch.isfinite(matrix).all()):
            raise ValueError(f"{where}: camera_to_world is not a 4x4 matrix of finite numbers")
        if float((matrix[:3, :3].T @ matrix[:3, :3] - torch.eye(3)).abs().max()) > 1e-3:
            raise ValueError(f"{where}: camera_to_world is not a rotation and a translation")
        return matrix[:3, 3], matrix[:3, :3]
    position = _vector(frame["position"], 3, f"{where}: position")
    if "quaternion" in frame:
        quat = _vector(frame["quaternion"], 4, f"{where}: quaternion")
        if not bool(quat.any()):
            raise ValueError(f"{where}: quaternion is zero")
        return position, quat_to_matrix(quat)
    if "look_at" not in frame:
        raise ValueError(f"{where}: one of look_at, quaternion and camera_to_world is needed")
    return position, _looking(position, _vector(frame["look_at"], 3, f"{where}: look_at"), up)


def _vector(value: Any, length: int, what: str) -> Tensor:
    vector = torch.tensor(value, dtype=torch.float64)
    if vector.shape != (length,) or not bool(torch.isfinite(vector).all()):
        raise ValueError(f"{what} is not a list of {length} finite numbers")
    return vector


def orbit(cameras: list[Camera], count: int) -> list[Camera]:
    """`count` cameras on a circle around what `cameras` look at, at their mean distance and height.

    Size and field of view are those of the first camera. The axis of the circle is the cameras' mean up.
    """
    centre = focus(cameras)
    up = torch.nn.functional.normalize(-torch.stack([_axes(c)[:, 1] for c in cameras]).mean(0), dim=0)
    offsets = torch.stack([c.position.double() for c in cameras]) - centre
    heights = offsets @ up
    radius = float((offsets - heights[:, None] * up).norm(dim=1).mean())
    start = offsets[0] - heights[0] * up
    start = torch.nn.functional.normalize(start if float(start.norm()) > 1e-9 else torch.roll(up, 1), dim=0)
    side = torch.linalg.cross(up, start)
    out = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        around = math.cos(angle) * start + math.sin(angle) * side
        position = centre + radius * around + heights.mean() * up
        like = cameras[0]
        out.append(
            _camera(
                _looking(position, centre, up),
                position,
                like.width,
                like.height,
                (like.fx * like.fy) ** 0.5,
                f"{i:05d}",
            )
        )
    return out


def around(means: Tensor, width: int, height: int) -> list[Camera]:
    """Four cameras around a scene of which nothing but the [N, 3] means is known; -y is taken for up."""
    centre = means.double().median(0).values
    radius = float((means.double() - centre).norm(dim=1).quantile(0.8)) if len(means) else 1.0
    fov = math.radians(50)
    distance = radius / math.sin(fov / 2)
    focal = 0.5 * height / math.tan(fov / 2)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    out = []
    for i, (x, z) in enumerate(((0, -1), (1, 0), (0, 1), (-1, 0))):
        position = centre + distance * torch.tensor([x, -0.35, z], dtype=torch.float64)
        out.append(_camera(_looking(position, centre, up), position, width, height, focal, f"{i:05d}"))
    return out


def focus(cameras: list[Camera]) -> Tensor:
    """[3] the point nearest to all viewing rays, in the least-squares sense.

    Where the rays are almost parallel the point is ill-defined: the system is damped towards the point
    at the cameras' mean, moved forward by their spread.
    """
    positions = torch.stack([c.position.double() for c in cameras])
    forwards = torch.stack([c.forward.double() for c in cameras])
    mean = positions.mean(0)
    spread = float((positions - mean).norm(dim=1).max()) or 1.0
    guess = mean + spread * torch.nn.functional.normalize(forwards.mean(0), dim=0)
    across = torch.eye(3, dtype=torch.float64) - forwards[:, :, None] * forwards[:, None, :]
    damping = 1e-3 * len(cameras) * torch.eye(3, dtype=torch.float64)
    system = across.sum(0) + damping
    right = (across @ positions[:, :, None]).sum(0)[:, 0] + damping @ guess
    return torch.linalg.solve(system, right)


def _axes(camera: Camera) -> Tensor:
    """[3, 3] right, down and forward of a camera in the world, columns."""
    return camera.world_to_camera[:3, :3].T.double()
