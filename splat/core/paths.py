"""Camera paths: keyframes, smoothly joined, as the JSON file that `splat render --path` takes.

Positions are cubic Hermite curves with the tangents of the parabola through three neighbours (Catmull-Rom for
uneven times). Orientations are their counterpart on the rotations: the cubic Bezier curve in cumulative form
(Kim, Kim and Shin, "A General Construction Scheme for Unit Quaternion Curves with Simple High Order
Derivatives", 1995), which meets every keyframe with a continuous angular velocity and is the great arc
between two. Fields of view are interpolated in the logarithm of the focal length, so that they stay possible.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.core.camera import Camera
from splat.core.errors import DataError
from splat.core.rotations import (
    matrix_to_quat,
    quat_conjugate,
    quat_exp,
    quat_log,
    quat_multiply,
    quat_to_matrix,
)

# Points a keyframe interval at which constant speed measures the length of the curve.
_LENGTH_POINTS = 256
# An interval shorter than this share of the path is one in which the camera turns in place.
_STANDING = 1e-6


@dataclass(frozen=True)
class CameraPath:
    """Keyframes of a moving camera.

    Attributes:
        times: [K] seconds, increasing.
        positions: [K, 3] float64, world units.
        quats: [K, 4] float64, camera to world, wxyz, of any length above zero.
        fovs: [K] vertical fields of view, radians.
        width, height: pixels.
        fps: frames a second.
        loop: whether the last keyframe leads back to the first, in the mean time between keyframes.
        constant_speed: whether the camera moves at one speed; the times then give the whole duration, and
            that of turns in place.

    Raises:
        ValueError: on construction, where a value is impossible; the message names the keyframe.
    """

    times: Tensor
    positions: Tensor
    quats: Tensor
    fovs: Tensor
    width: int = 960
    height: int = 540
    fps: float = 30.0
    loop: bool = False
    constant_speed: bool = False

    def __post_init__(self) -> None:
        if len(self.times) == 0:
            raise ValueError("keyframes is empty")
        for i, fov in enumerate(self.fovs.tolist()):
            if not 0 < fov < math.pi:
                raise ValueError(f"keyframe {i}: fov {math.degrees(fov):g} is not between 0 and 180 degrees")
        if any(not b > a for a, b in itertools.pairwise(self.times.tolist())):
            raise ValueError("the times of the keyframes do not increase")
        if not bool(torch.isfinite(self.times).all()):
            raise ValueError("the times of the keyframes must be finite")
        if self.width < 1 or self.height < 1 or not 0 < self.fps < math.inf:
            raise ValueError(f"width {self.width}, height {self.height} and fps {self.fps} must be positive")

    @property
    def duration(self) -> float:
        """Seconds from the first keyframe to the last, or around the loop."""
        return float(self._knots[-1] - self._knots[0])

    def frames(self) -> list[Camera]:
        """One camera a frame, from the first keyframe to the last (for a loop, short of the repeated one)."""
        count = max(1, round(self.duration * self.fps) + (0 if self._closed else 1))
        times = self.times[0] + torch.arange(count, dtype=torch.float64) / self.fps
        positions, quats, fovs = self.evaluate(times)
        return [self._camera(positions[i], quats[i], float(fovs[i]), f"{i:05d}") for i in range(count)]

    def at(self, time: float, name: str = "") -> Camera:
        """The camera at `time`, seconds on the keyframes' clock, held within the path."""
        positions, quats, fovs = self.evaluate(torch.tensor([time], dtype=torch.float64))
        return self._camera(positions[0], quats[0], float(fovs[0]), name)

    def evaluate(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions [T, 3], unit quaternions [T, 4] wxyz and fields of view [T] at `times` [T] seconds."""
        if self.constant_speed and self._clock is not None:
            times = _lerp(times, *self._clock)
        return self._on_curve(times)

    def to_json(self) -> str:
        """The path as the text of a JSON file that `read_path` takes."""
        frames = [
            {
                "time": float(self.times[i]),
                "position": self.positions[i].tolist(),
                "quaternion": torch.nn.functional.normalize(self.quats[i], dim=0).tolist(),
                "fov": math.degrees(float(self.fovs[i])),
            }
            for i in range(len(self.times))
        ]
        document = {
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "loop": self.loop,
            "constant_speed": self.constant_speed,
            "keyframes": frames,
        }
        return json.dumps(document, indent=2) + "\n"

    @property
    def _closed(self) -> bool:
        return self.loop and len(self.times) > 1

    @cached_property
    def _order(self) -> list[int]:
        """Numbers of the keyframes that the curve visits: in a loop, the first comes again."""
        return [*range(len(self.times)), *([0] if self._closed else [])]

    @cached_property
    def _knots(self) -> Tensor:
        """[V] times of the visits."""
        if not self._closed:
            return self.times
        mean = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return torch.cat([self.times, (self.times[-1] + mean)[None]])

    @cached_property
    def _curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values [V, 4] (position, log of 2 focal / height) and their tangents [V, 4]; [V - 1, 3, 3] turns.

        The three turns of an interval follow each other; each is a body-frame rotation vector.
        """
        values = torch.cat([self.positions, -torch.log(torch.tan(self.fovs / 2))[:, None]], 1)[self._order]
        quats = torch.nn.functional.normalize(self.quats, dim=1)[self._order]
        h = self._knots.diff()[:, None]
        slopes = values.diff(dim=0) / h
        tangents = _tangents(slopes, h, self._closed)
        # Between two keyframes at one place the camera stands: it must come there at rest.
        still = (slopes[:, :3] == 0).all(1).nonzero()[:, 0]
        tangents[torch.cat([still, still + 1]), :3] = 0
        between = quat_multiply(quat_conjugate(quats[:-1]), quats[1:])
        velocities = _tangents(quat_log(between) / h, h, self._closed)
        first, last = h * velocities[:-1] / 3, h * velocities[1:] / 3
        middle = quat_log(quat_multiply(quat_multiply(quat_exp(-first), between), quat_exp(-last)))
        return values, tangents, torch.stack([first, middle, last], 1)

    def _on_curve(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `evaluate`, at `times` [T] of the keyframes' own clock."""
        knots = self._knots
        if len(knots) == 1:
            quat = torch.nn.functional.normalize(self.quats, dim=1)
            count = len(times)
            return self.positions.expand(count, 3), quat.expand(count, 4), self.fovs.expand(count)
        values, tangents, turns = self._curve
        times = times.clamp(knots[0], knots[-1])
        i = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(knots) - 2)
        h = (knots[i + 1] - knots[i])[:, None]
        u = (times - knots[i])[:, None] / h
        u2, u3 = u * u, u * u * u
        value = (
            (2 * u3 - 3 * u2 + 1) * values[i]
            + (u3 - 2 * u2 + u) * h * tangents[i]
            + (3 * u2 - 2 * u3) * values[i + 1]
            + (u3 - u2) * h * tangents[i + 1]
        )
        quats = torch.nn.functional.normalize(self.quats, dim=1)[self._order][i]
        for part, weight in enumerate((1 - (1 - u) ** 3, 3 * u2 - 2 * u3, u3)):
            quats = quat_multiply(quats, quat_exp(weight * turns[i, part]))
        return value[:, :3], quats, 2 * torch.atan(torch.exp(-value[:, 3]))

    @cached_property
    def _clock(self) -> tuple[Tensor, Tensor] | None:
        """Times of even motion and the curve's times that belong to them, [P] each; None where nothing moves."""
        knots = self._knots
        if len(knots) == 1:
            return None
        share = torch.arange(_LENGTH_POINTS, dtype=torch.float64) / _LENGTH_POINTS
        times = (knots[:-1, None] + knots.diff()[:, None] * share).flatten()
        times = torch.cat([times, knots[-1:]])
        steps = self._on_curve(times)[0].diff(dim=0).norm(dim=1).view(-1, _LENGTH_POINTS)
        lengths = steps.sum(1)
        moving = lengths > _STANDING * lengths.sum()
        if not bool(moving.any()):
            return None
        own = knots.diff()
        pace = own[moving].sum() / lengths[moving].sum()
        seconds = torch.where(moving[:, None], steps * pace, (own / _LENGTH_POINTS)[:, None])
        even = torch.cat([knots[:1], knots[0] + seconds.flatten().cumsum(0)])
        return even, times

    def _camera(self, position: Tensor, quat: Tensor, fov: float, name: str) -> Camera:
        focal = 0.5 * self.height / math.tan(0.5 * fov)
        return camera_at(quat_to_matrix(quat), position, self.width, self.height, focal, name)


def _tangents(slopes: Tensor, h: Tensor, closed: bool) -> Tensor:
    """[V, D] derivatives at the visits, of the parabolas through three; `slopes` [V - 1, D], `h` [V - 1, 1]."""
    inner = (h[1:] * slopes[:-1] + h[:-1] * slopes[1:]) / (h[1:] + h[:-1])
    if closed:
        seam = (h[:1] * slopes[-1:] + h[-1:] * slopes[:1]) / (h[:1] + h[-1:])
        return torch.cat([seam, inner, seam])
    return torch.cat([slopes[:1], inner, slopes[-1:]])


def _lerp(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation at `x` of `values` over increasing `at`, held at the ends."""
    i = (torch.searchsorted(at, x.contiguous(), right=True) - 1).clamp(0, len(at) - 2)
    width = (at[i + 1] - at[i]).clamp_min(torch.finfo(at.dtype).tiny)
    share = ((x - at[i]) / width).clamp(0, 1)
    return values[i] + share * (values[i + 1] - values[i])


def camera_at(
    rotation: Tensor, position: Tensor, width: int, height: int, focal: float, name: str = ""
) -> Camera:
    """A camera from its axes in the world ([3, 3], columns) and its position [3]; `focal` in pixels."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -rotation.T @ position
    return Camera(width, height, focal, focal, width / 2, height / 2, pose.float(), name)


def looking(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """[3, 3] axes of a camera at `position` that looks at `target`: columns right, down, forward."""
    camera = Camera.look_at(position, target, up, width=1, height=1, field_of_view=1.0)
    return camera.world_to_camera[:3, :3].T


def read_path(file: Path) -> CameraPath:
    """Read a camera path; DataError says which keyframe lacks what."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot read the camera path: {error.strerror}; check the name") from error
    return parse_path(text, str(file))


def parse_path(text: str | bytes, where: str) -> CameraPath:
    """A camera path from the text of its file; DataError, beginning with `where`, says what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not JSON: {error}; splat render --help shows a camera path") from error
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: {reason}; splat render --help shows a camera path") from error


def _parsed(document: dict[str, Any]) -> CameraPath:
    frames = document["keyframes"]
    if not frames:
        raise ValueError("keyframes is empty")
    up = _vector(document.get("up", [0, -1, 0]), 3, "up")
    times: list[float] = []
    positions: list[Tensor] = []
    quats: list[Tensor] = []
    fovs: list[float] = []
    for i, frame in enumerate(frames):
        times.append(float(frame.get("time", i)))
        position, rotation = _placed(frame, up, f"keyframe {i}")
        positions.append(position)
        quats.append(matrix_to_quat(rotation))
        fovs.append(math.radians(float(frame.get("fov", 50))))
    return CameraPath(
        torch.tensor(times, dtype=torch.float64),
        torch.stack(positions),
        torch.stack(quats),
        torch.tensor(fovs, dtype=torch.float64),
        int(document.get("width", 960)),
        int(document.get("height", 540)),
        float(document.get("fps", 30)),
        bool(document.get("loop", False)),
        bool(document.get("constant_speed", False)),
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
    return position, looking(position, _vector(frame["look_at"], 3, f"{where}: look_at"), up)


def _vector(value: Any, length: int, what: str) -> Tensor:
    vector = torch.tensor(value, dtype=torch.float64)
    if vector.shape != (length,) or not bool(torch.isfinite(vector).all()):
        raise ValueError(f"{what} is not a list of {length} finite numbers")
    return vector
