"""Keyframes of a camera path, as they are edited."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from splat.core import Camera
from splat.core.paths import CameraPath
from splat.core.rotations import matrix_to_quat

SECONDS = 2.0  # from a new keyframe to the next


@dataclass(frozen=True)
class Keyframe:
    """Where the camera is at one moment.

    Attributes:
        position: [3] float64, world units.
        quat: [4] float64 wxyz, camera to world.
        fov: vertical field of view, radians.
        seconds: until the next keyframe.
    """

    position: Tensor
    quat: Tensor
    fov: float
    seconds: float = SECONDS

    @staticmethod
    def of(camera: Camera, seconds: float = SECONDS) -> Keyframe:
        """As `camera` stands."""
        pose = camera.world_to_camera.detach().double().cpu()
        quat = matrix_to_quat(pose[:3, :3].T)
        fov = 2 * math.atan(camera.height / (2 * camera.fy))
        return Keyframe(-pose[:3, :3].T @ pose[:3, 3], quat, fov, seconds)


@dataclass
class Keyframes:
    """A list of keyframes, one of which is at hand.

    Attributes:
        frames: in the order of the path.
        at: number of the one at hand; 0 where there are none.
    """

    frames: list[Keyframe] = field(default_factory=list)
    at: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, frame: Keyframe) -> None:
        """After the one at hand, which it becomes."""
        self.at = self.at + 1 if self.frames else 0
        self.frames.insert(self.at, frame)

    def replace(self, frame: Keyframe) -> None:
        """In place of the one at hand, whose time stays."""
        self.frames[self.at] = replace(frame, seconds=self.frames[self.at].seconds)

    def wait(self, seconds: float) -> None:
        """Let the one at hand be `seconds` before the next."""
        self.frames[self.at] = replace(self.frames[self.at], seconds=seconds)

    def remove(self) -> None:
        """The one at hand."""
        del self.frames[self.at]
        self.at = max(0, min(self.at, len(self.frames) - 1))

    def move(self, by: int) -> None:
        """The one at hand, `by` places later (negative: earlier), as far as there are places."""
        to = max(0, min(self.at + by, len(self.frames) - 1))
        self.frames.insert(to, self.frames.pop(self.at))
        self.at = to

    def camera(self, number: int) -> Camera:
        """The camera at one of the keyframes."""
        return Keyframes([self.frames[number]]).path().at(0.0)

    def path(
        self,
        width: int = 960,
        height: int = 540,
        fps: float = 30.0,
        loop: bool = False,
        constant_speed: bool = False,
        offset: Tensor | None = None,
    ) -> CameraPath:
        """The path, moved by `offset` ([3], none by default); ValueError where there is no keyframe."""
        if not self.frames:
            raise ValueError("there is no keyframe yet")
        waits = torch.tensor([0.0] + [frame.seconds for frame in self.frames[:-1]], dtype=torch.float64)
        shift = torch.zeros(3, dtype=torch.float64) if offset is None else offset
        return CameraPath(
            waits.cumsum(0),
            torch.stack([frame.position for frame in self.frames]) + shift,
            torch.stack([frame.quat for frame in self.frames]),
            torch.tensor([frame.fov for frame in self.frames], dtype=torch.float64),
            width,
            height,
            fps,
            loop,
            constant_speed,
        )

    @staticmethod
    def of(path: CameraPath, offset: Tensor | None = None) -> Keyframes:
        """The keyframes of a path, moved by `offset`."""
        shift = torch.zeros(3, dtype=torch.float64) if offset is None else offset
        waits = [*path.times.diff().tolist(), SECONDS]
        frames = [
            Keyframe(path.positions[i] + shift, path.quats[i], float(path.fovs[i]), waits[i])
            for i in range(len(path.times))
        ]
        return Keyframes(frames, len(frames) - 1)
