"""Photographs of any camera model as a pinhole would have taken them, in memory.

The pinhole keeps the model's focal lengths, so the centre keeps its resolution. Mild distortion also keeps the image
size and the principal point; where the field is larger than that, the image grows to hold it, up to 60 degrees to
each side. What the photograph does not show comes back as not valid.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from splat.data.intrinsics import Intrinsics

_KEEP = 0.05  # a border that moves by less than this share of the size leaves the image size as it is
_MAX_TANGENT = math.tan(math.radians(60))
_MIN_SHARE = 0.25  # the pinhole never gets smaller than this share of the photograph's size


@dataclass(frozen=True)
class Distortion:
    """How pixels of a pinhole image are found in the photograph.

    Attributes:
        source: the camera that took the photograph.
        width, height, fx, fy, cx, cy: the pinhole image.
        radius: largest tangent of the angle from the axis at which the model is still one-to-one; beyond it a
            polynomial folds back and would show the photograph a second time.
    """

    source: Intrinsics
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    radius: float

    def source_pixels(self, rows: range) -> Tensor:
        """[len(rows), width, 2] float32 photograph coordinates (centres at +0.5) of the pinhole's pixel centres;
        NaN where the photograph shows nothing."""
        camera = self._camera
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.asarray(rows) + 0.5)
        rays = np.ones((u.size, 3))
        rays[:, 0] = ((u - self.cx) / self.fx).ravel()
        rays[:, 1] = ((v - self.cy) / self.fy).ravel()
        pixels = np.asarray(camera.img_from_cam(rays))
        outside = ~((pixels >= 0) & (pixels <= (self.source.width, self.source.height))).all(1)
        outside |= np.hypot(rays[:, 0], rays[:, 1]) > self.radius
        pixels[outside] = np.nan
        return torch.from_numpy(pixels.astype(np.float32)).view(len(rows), self.width, 2)

    @cached_property
    def _camera(self):
        return self.source.colmap_camera()


def undistorted(intrinsics: Intrinsics) -> Distortion:
    """The pinhole that stands in for a distorted camera.

    Args:
        intrinsics: of a model that ``fault()`` finds nothing wrong with.
    """
    fx, fy, cx, cy = intrinsics.pinhole
    radius = _fold_radius(intrinsics)
    width, height = intrinsics.width, intrinsics.height
    left, right, top, bottom = _field(intrinsics, radius)
    kept = (-cx / fx, (width - cx) / fx, -cy / fy, (height - cy) / fy)
    spans = (width / fx, width / fx, height / fy, height / fy)
    field = (left, right, top, bottom)
    if any(abs(a - b) > _KEEP * span for a, b, span in zip(field, kept, spans, strict=True)):
        width = max(round((right - left) * fx), math.ceil(width * _MIN_SHARE))
        height = max(round((bottom - top) * fy), math.ceil(height * _MIN_SHARE))
        cx, cy = -left * fx, -top * fy
    return Distortion(intrinsics, width, height, fx, fy, cx, cy, radius)


def _field(intrinsics: Intrinsics, radius: float) -> tuple[float, float, float, float]:
    """Smallest and largest x/z, smallest and largest y/z of what the photograph's border sees, limited to 60
    degrees and to where the model is one-to-one."""
    camera = intrinsics.colmap_camera()
    limit = min(radius, _MAX_TANGENT)
    # Rays on ever wider rings until they leave the photograph: sure for any model, where inverting one may fail.
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radii = np.linspace(0, math.hypot(limit, limit) if limit < radius else radius, 1024)[1:]
    x, y = (np.outer(f(angles), radii).clip(-limit, limit) for f in (np.cos, np.sin))
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    pixels = np.asarray(camera.img_from_cam(rays))
    inside = ((pixels >= 0) & (pixels <= (intrinsics.width, intrinsics.height))).all(1)
    if not inside.any():
        return -limit, limit, -limit, limit
    seen = rays[inside]
    return seen[:, 0].min(), seen[:, 0].max(), seen[:, 1].min(), seen[:, 1].max()


def _fold_radius(intrinsics: Intrinsics) -> float:
    """The tangent at which, going outwards, the projected radius first stops growing in some direction."""
    camera = intrinsics.colmap_camera()
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    # Even steps in angle resolve both ends; up to 85 degrees from the axis.
    radii = np.tan(np.linspace(0, math.radians(85), 1024))
    rays = np.stack(
        [np.outer(np.cos(angles), radii), np.outer(np.sin(angles), radii), np.ones((64, 1024))], -1
    ).reshape(-1, 3)
    fx, fy, cx, cy = intrinsics.pinhole
    pixels = np.asarray(camera.img_from_cam(rays)).reshape(64, 1024, 2)
    distance = np.hypot((pixels[..., 0] - cx) / fx, (pixels[..., 1] - cy) / fy)
    growing = np.diff(distance, axis=1) > 0  # false for NaN too
    first = np.where(growing.all(1), 1023, np.argmin(growing, axis=1))
    return float(radii[first.min()])


class RemapTables:
    """Blocks of source coordinates, the latest used kept within a byte budget; safe to use from several threads."""

    def __init__(self, budget: int) -> None:
        self._budget, self._bytes = budget, 0
        self._blocks: OrderedDict[tuple[Distortion, int, int], Tensor] = OrderedDict()
        self._lock = Lock()

    def block(self, distortion: Distortion, rows: range) -> Tensor:
        """`distortion.source_pixels(rows)`, computed or remembered."""
        key = (distortion, rows.start, rows.stop)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        table = distortion.source_pixels(rows)
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = table
                self._bytes += table.nbytes
            while self._bytes > self._budget and len(self._blocks) > 1:
                _, old = self._blocks.popitem(last=False)
                self._bytes -= old.nbytes
        return table
