"""Depth maps that a dataset brings along, and the points that they give."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from splat.data.images import decode, oriented, same_aspect
from splat.data.intrinsics import Intrinsics
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Points

_COUNT = 100_000  # as many as random points by default
_FRAMES = 64  # maps that are read for points: evenly spread ones show nearly all of a scene
# Between a surface and what lies behind it sensors and averaging invent depths. A plane seen at 85 degrees by a
# lens of 230 pixels (a phone's depth map) changes by 5% from pixel to pixel, less in any finer map.
_JUMP = 0.05


def read_depth(frame: Frame) -> np.ndarray:
    """A frame's depth map: [h, w] float32 camera z in world units, 0 where nothing is known.

    It covers the photograph as it was taken, turned as the frame's camera expects and not undistorted, at a
    resolution of its own.

    Raises:
        DatasetError: the map or its confidence is missing, damaged, or of another shape.
    """
    file = frame.depth
    assert file is not None, "the frame has no depth map"
    values = _decoded(file.path)
    depth = (values * np.float32(file.scale)).astype(np.float32)
    known = np.isfinite(depth) & (depth > 0)
    if file.confidence is not None:
        trust = _decoded(file.confidence)
        if trust.shape != depth.shape:
            cause = f"confidence is {trust.shape[1]}x{trust.shape[0]}, its depth {depth.shape[1]}x{depth.shape[0]}"
            raise DatasetError("depth-size", file.confidence, cause, "copy both again, or remove it")
        known &= trust > 0
    depth = np.where(known, depth, np.float32(0))
    source = source_camera(frame)
    if frame.orientation != 1 and not same_aspect(
        depth.shape[1], depth.shape[0], source.width, source.height
    ):
        depth = oriented(depth, frame.orientation)
    return depth


def source_camera(frame: Frame) -> Intrinsics:
    """The camera that took the photograph, distortion included."""
    if frame.distortion is not None:
        return frame.distortion.source
    camera = frame.camera
    return Intrinsics("PINHOLE", (camera.fx, camera.fy, camera.cx, camera.cy), camera.width, camera.height)


def _decoded(path: Path) -> np.ndarray:
    """[h, w] float32 values as they are stored."""
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            from PIL import Image

            with Image.open(path) as image:
                values = np.asarray(image)
        values = np.squeeze(values)
        if values.ndim != 2 or values.dtype.kind not in "fiub":
            raise ValueError(f"holds {values.dtype} values of shape {values.shape}")
        return values.astype(np.float32)
    except Exception as error:  # Pillow's and NumPy's parsers raise nearly anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        cause = f"is no depth map ({reason})"
        raise DatasetError("depth-damaged", path, cause, "copy it again, or remove it") from error


def points_from_depth(frames: list[Frame], report: Report, count: int = _COUNT) -> Points | None:
    """Coloured points on the surfaces that the frames' depth maps show, at most about `count`.

    Pixels are taken on a regular grid, away from jumps of depth, in maps spread evenly over the frames. Colours are
    those of the photographs. The same files give the same points.

    Returns:
        The points, or None where no frame has a depth map with anything in it.
    """
    chosen = [frame for frame in frames if frame.depth is not None]
    if len(chosen) > _FRAMES:
        chosen = [chosen[index] for index in np.linspace(0, len(chosen) - 1, _FRAMES).astype(int)]
    if not chosen:
        return None
    budget = -(-count // len(chosen))

    def unproject(frame: Frame) -> tuple[np.ndarray, np.ndarray] | DatasetError:
        try:
            return _points_of(frame, budget)
        except DatasetError as error:
            return error

    parts = []
    with ThreadPoolExecutor(2) as pool:
        for part in pool.map(unproject, chosen):
            if isinstance(part, DatasetError):
                report.error(part)
            else:
                parts.append(part)
    if not parts or not sum(len(xyz) for xyz, _ in parts):
        return None
    xyz, rgb = (np.concatenate(column) for column in zip(*parts, strict=True))
    report.note("points-from-depth", f"{len(xyz):,} points from the depth maps of {len(parts)} photographs")
    return Points(torch.from_numpy(xyz), torch.from_numpy(rgb))


def _points_of(frame: Frame, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """[K, 3] float64 world positions and [K, 3] uint8 colours of about `budget` pixels of one depth map."""
    depth = read_depth(frame)
    height, width = depth.shape
    steady = depth > 0
    for axis in (0, 1):
        for step in (1, -1):
            beside = np.roll(depth, step, axis)
            steady &= np.abs(beside - depth) <= _JUMP * depth
    total = int(steady.sum())
    stride = max(1, int(np.sqrt(total / max(1, budget))))
    rows, columns = np.nonzero(steady[stride // 2 :: stride, stride // 2 :: stride])
    rows, columns = rows * stride + stride // 2, columns * stride + stride // 2

    pixels = np.stack([columns + 0.5, rows + 0.5], 1)
    source = source_camera(frame).resized(width, height)
    if source.distorted:
        tangents = np.asarray(source.colmap_camera().cam_from_img(pixels)).reshape(-1, 2)
    else:
        fx, fy, cx, cy = source.pinhole
        tangents = (pixels - (cx, cy)) / (fx, fy)
    z = depth[rows, columns].astype(np.float64)[:, None]
    local = np.concatenate([tangents * z, z], 1)
    pose = frame.camera.world_to_camera.numpy()
    xyz = (local - pose[:3, 3]) @ pose[:3, :3]

    colour, _ = decode(frame.path, frame.orientation)
    tall, wide = colour.shape[:2]
    rgb = colour[
        (pixels[:, 1] * tall / height).astype(int).clip(0, tall - 1),
        (pixels[:, 0] * wide / width).astype(int).clip(0, wide - 1),
    ]
    finite = np.isfinite(xyz).all(1)
    return xyz[finite], rgb[finite].astype(np.uint8)
