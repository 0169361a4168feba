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
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from splat.data.intrinsics import Intrinsics

if TYPE_CHECKING:
    import pycolmap

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
        tangents = np.empty((len(rows), self.width, 2))
        tangents[..., 0] = (np.arange(self.width) + 0.5 - self.cx) / self.fx
        tangents[..., 1] = ((np.asarray(rows) + 0.5 - self.cy) / self.fy)[:, None]
        pixels = _project(self._camera, tangents)
        size = np.array([self.source.width, self.source.height])
        outside = ~((pixels >= 0) & (pixels <= size)).all(-1)
        outside |= np.hypot(tangents[..., 0], tangents[..., 1]) > self.radius
        pixels[outside] = np.nan
        return torch.from_numpy(pixels.astype(np.float32))

    @cached_property
    def _camera(self) -> pycolmap.Camera:
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
    fx, fy, cx, cy = intrinsics.pinhole
    width, height = intrinsics.width, intrinsics.height
    # Outwards from the axis in all directions, those of the corners among them, to where each leaves the
    # photograph: sure for any model, where inverting one may fail. Two rounds resolve a 4096th of the way.
    corners = [math.atan2((y - cy) / fy, (x - cx) / fx) for x in (0, width) for y in (0, height)]
    angles = np.concatenate([np.linspace(0, 2 * np.pi, 88, endpoint=False), corners])
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    reach = np.minimum(_MAX_TANGENT / np.abs(directions).max(1), radius)
    seen = np.zeros(len(angles))
    step = 1.0
    for _ in range(2):
        step /= 64
        shares = seen[:, None] + step * np.arange(1, 65)
        pixels = _project(camera, directions[:, None] * (reach[:, None] * shares)[..., None])
        left = ~((pixels >= 0) & (pixels <= np.array([width, height]))).all(-1)
        steps = np.where(left.any(-1), np.argmax(left, axis=-1), 64)
        seen = seen + step * steps
    border = directions * (reach * seen.clip(0, 1))[:, None]
    return border[:, 0].min(), border[:, 0].max(), border[:, 1].min(), border[:, 1].max()


def _fold_radius(intrinsics: Intrinsics) -> float:
    """The tangent at which, going outwards, the projected radius first stops growing in some direction."""
    camera = intrinsics.colmap_camera()
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    # Even steps in angle resolve both ends; up to 85 degrees from the axis.
    radii = np.tan(np.linspace(0, math.radians(85), 512))
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    pixels = _project(camera, directions[:, None] * radii[:, None])
    fx, fy, cx, cy = intrinsics.pinhole
    distance = np.hypot((pixels[..., 0] - cx) / fx, (pixels[..., 1] - cy) / fy)
    growing = np.diff(distance, axis=1) > 0  # false for NaN too
    first = np.where(growing.all(1), 511, np.argmin(growing, axis=1))
    return float(radii[first.min()])


def _project(camera: pycolmap.Camera, tangents: np.ndarray) -> np.ndarray:
    """[..., 2] pixels of rays given by [..., 2] x/z and y/z; NaN where the model has none."""
    rays = np.concatenate([tangents, np.ones_like(tangents[..., :1])], -1)
    return np.asarray(camera.img_from_cam(rays.reshape(-1, 3))).reshape(tangents.shape)


@dataclass(frozen=True)
class Remap:
    """Where rows of the pinhole image come from, ready for sampling.

    Attributes:
        first, last: rows [first, last) of the photograph hold all that is needed; equal where nothing is.
        grid: [1, rows, width, 2] float32 coordinates in those rows, -1 and 1 at their outer edges.
        shown: [rows, width, 1] float32, 1 where the photograph shows something and 0 elsewhere; None where it
            does everywhere.
    """

    first: int
    last: int
    grid: Tensor
    shown: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.grid.nbytes + (0 if self.shown is None else self.shown.nbytes)


def remap(distortion: Distortion, rows: range) -> Remap:
    """The part of the photograph that these rows of the pinhole image need, and where in it."""
    table = distortion.source_pixels(rows)
    shown = ~table[..., :1].isnan()
    if not shown.any():
        return Remap(0, 0, torch.empty(1, 0, 0, 2), shown.float())
    y = table[..., 1].nan_to_num(nan=math.inf)
    first = max(0, math.floor(float(y.min())) - 1)
    last = min(distortion.source.height, math.ceil(float(table[..., 1].nan_to_num(nan=0.0).max())) + 1)
    scale = torch.tensor([2.0 / distortion.source.width, 2.0 / (last - first)])
    grid = table.sub_(torch.tensor([0.0, first])).mul_(scale).sub_(1).nan_to_num_(nan=0.0)
    return Remap(first, last, grid[None], None if bool(shown.all()) else shown.float())


class RemapTables:
    """Remaps of blocks of rows, the latest used kept within a byte budget; safe to use from several threads."""

    def __init__(self, budget: int) -> None:
        self._budget, self._bytes = budget, 0
        self._blocks: OrderedDict[tuple[Distortion, int, int], Remap] = OrderedDict()
        self._lock = Lock()

    def block(self, distortion: Distortion, rows: range) -> Remap:
        """`remap(distortion, rows)`, computed or remembered."""
        key = (distortion, rows.start, rows.stop)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        block = remap(distortion, rows)
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._bytes += block.nbytes
            while self._bytes > self._budget and len(self._blocks) > 1:
                _, old = self._blocks.popitem(last=False)
                self._bytes -= old.nbytes
        return block
