"""The bytes of a COLMAP binary model, walked before pycolmap gets them.

pycolmap trusts the files: a truncated one is read as if the rest were there, hangs or ends the process. So every
count, length and reference is checked here first. Layout: https://colmap.github.io/format.html
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.data.intrinsics import MODELS
from splat.data.problems import DatasetError

_NO_POINT = np.uint64(2**64 - 1)
_IMAGE = struct.Struct("<I7dI")
_CAMERA = struct.Struct("<IiQQ")
_POINT = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")])
_ELEMENT = np.dtype([("image", "<u4"), ("index", "<u4")])
_POINT2D = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
_SENSOR = struct.Struct("<iI")
_CAMERA_SENSOR = 0


@dataclass(frozen=True)
class BinaryPoints:
    """points3D.bin as arrays: ids [P] uint64, xyz [P, 3] float64, rgb [P, 3] uint8, error [P] float64; the
    observations one after another: offsets [P + 1] int64, images [M] uint32 (image ids), indices [M] uint32."""

    ids: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    error: np.ndarray
    offsets: np.ndarray
    images: np.ndarray
    indices: np.ndarray


class _Reader:
    """Takes values from a file's bytes; running out of them is an error that says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                "model-unreadable", path, "cannot be read", "change its permissions"
            ) from error
        self.at = 0

    def fail(self, cause: str) -> DatasetError:
        return DatasetError(
            "model-damaged", self.path, cause, "copy the model again, or run COLMAP's mapper again"
        )

    def need(self, size: int, what: str) -> int:
        """Move on by `size` bytes; returns where they start."""
        start = self.at
        if size > len(self.data) - start:
            raise self.fail(f"truncated at byte {len(self.data)}, inside {what}")
        self.at += size
        return start

    def unpack(self, layout: struct.Struct, what: str) -> tuple:
        return layout.unpack_from(self.data, self.need(layout.size, what))

    def count(self, smallest: int, what: str) -> int:
        """A number of records of at least `smallest` bytes each."""
        (count,) = self.unpack(struct.Struct("<Q"), f"the number of {what}")
        if count * smallest > len(self.data) - self.at:
            raise self.fail(f"truncated or damaged: it announces {count} {what} in {len(self.data)} bytes")
        return count

    def array(self, dtype: np.dtype, count: int, what: str) -> np.ndarray:
        start = self.need(count * dtype.itemsize, what)
        return np.frombuffer(self.data, dtype, count, start)

    def pose(self, values: Sequence[float], owner: str) -> None:
        """Quaternion and translation must be finite; the quaternion need not be of unit length, but near it."""
        if not np.isfinite(values).all() or not 1e-3 < math.hypot(*values[:4]) < 1e3:
            raise self.fail(f"damaged: the pose of {owner} is not finite or has no rotation")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise self.fail(f"damaged: {len(self.data) - self.at} bytes after its end")


def count_images(folder: Path) -> int:
    """How many images a binary model announces, from the first bytes of images.bin; 0 where it has not even those."""
    with (folder / "images.bin").open("rb") as file:
        head = file.read(8)
    return int.from_bytes(head, "little") if len(head) == 8 else 0


def validate(folder: Path) -> BinaryPoints:
    """Walk every file of a binary model.

    Returns:
        The points; cameras and images are pycolmap's to read.

    Raises:
        DatasetError: a file is truncated, damaged, or refers to what is not there.
    """
    cameras = _cameras(_Reader(folder / "cameras.bin"))
    images = _Images(_Reader(folder / "images.bin"), cameras)
    reader = _Reader(folder / "points3D.bin")
    points = _points(reader)
    images.check_observations(points, reader)
    if (folder / "rigs.bin").exists() or (folder / "frames.bin").exists():
        for name in ("rigs.bin", "frames.bin"):
            if not (folder / name).exists():
                raise DatasetError(
                    "model-incomplete", folder / name, "no such file", "copy the whole model again"
                )
        rigs = _rigs(_Reader(folder / "rigs.bin"), cameras)
        _frames(_Reader(folder / "frames.bin"), rigs, images)
    return points


def _cameras(reader: _Reader) -> set[int]:
    ids: set[int] = set()
    for _ in range(reader.count(_CAMERA.size, "cameras")):
        identity, model, _, _ = reader.unpack(_CAMERA, "a camera")
        if not 0 <= model < len(MODELS):
            known = ", ".join(name for name, _, _ in MODELS)
            cause = f"camera {identity} has the unknown camera model {model}"
            raise DatasetError("camera-model", reader.path, cause, f"use one of {known}")
        reader.need(8 * MODELS[model][1], "a camera's parameters")
        if identity in ids:
            raise reader.fail(f"damaged: camera {identity} comes twice")
        ids.add(identity)
    reader.finish()
    return ids


class _Images:
    """images.bin: the cameras and observations that each image refers to."""

    def __init__(self, reader: _Reader, cameras: set[int]) -> None:
        self.reader = reader
        self.camera_of: dict[int, int] = {}
        self.observed: dict[int, np.ndarray] = {}
        names: set[str] = set()
        for _ in range(reader.count(_IMAGE.size + 9, "images")):
            identity, *pose, camera = reader.unpack(_IMAGE, "an image's pose")
            end = reader.data.find(b"\0", reader.at)
            if end < 0:
                raise reader.fail(f"truncated at byte {len(reader.data)}, inside an image's name")
            try:
                name = reader.data[reader.at : end].decode()
            except UnicodeDecodeError as error:
                raise reader.fail(f"damaged: the name of image {identity} is not UTF-8") from error
            if not name.isprintable() or not name:
                raise reader.fail(f"damaged: the name of image {identity} is {name!r}")
            reader.at = end + 1
            if identity in self.camera_of:
                raise reader.fail(f"damaged: image {identity} comes twice")
            if camera not in cameras:
                raise reader.fail(
                    f"damaged: image {name} refers to camera {camera}, which is not in cameras.bin"
                )
            reader.pose(pose, name)
            if name in names:
                cause = f"two images have the name {name}"
                raise DatasetError("duplicate-name", reader.path, cause, "remove one of them from the model")
            names.add(name)
            self.camera_of[identity] = camera
            points2d = reader.array(_POINT2D, reader.count(_POINT2D.itemsize, "observations"), "observations")
            self.observed[identity] = points2d["point"]
        reader.finish()

    def check_observations(self, points: BinaryPoints, reader: _Reader) -> None:
        """Tracks and observations must tell the same story: pycolmap fails, or fails to end, where they do not."""
        present = np.array(sorted(self.camera_of), dtype=np.int64)
        slot = np.searchsorted(present, points.images)
        slot[slot == len(present)] = 0
        if len(points.images) and (not len(present) or (present[slot] != points.images).any()):
            raise reader.fail("damaged: a track refers to an image that is not in images.bin")
        lengths = np.array([len(self.observed[int(identity)]) for identity in present], dtype=np.int64)
        if len(points.images) and (points.indices >= lengths[slot]).any():
            raise reader.fail("damaged: a track refers to an observation that is not in images.bin")
        starts = np.concatenate([[0], np.cumsum(lengths)])
        told = np.full(starts[-1], _NO_POINT)
        told[starts[slot] + points.indices] = np.repeat(points.ids, np.diff(points.offsets))
        seen = [self.observed[int(identity)] for identity in present]
        every = np.concatenate(seen) if seen else np.empty(0, np.uint64)
        if len(points.images) != int((told != _NO_POINT).sum()) or (told != every).any():
            raise reader.fail("damaged: its tracks and the observations of images.bin do not agree")


def _points(reader: _Reader) -> BinaryPoints:
    count = reader.count(_POINT.itemsize, "points")
    data, size = reader.data, _POINT.itemsize
    length_at = struct.Struct("<Q")
    starts = np.empty(count, np.int64)
    offsets = np.zeros(count + 1, np.int64)
    total = 0
    for index in range(count):
        start = reader.need(size, "a point")
        (length,) = length_at.unpack_from(data, start + size - 8)
        starts[index] = start
        reader.need(8 * length, "a point's track")
        total += length
        offsets[index + 1] = total
    reader.finish()
    raw = np.frombuffer(data, np.uint8)
    head = raw[starts[:, None] + np.arange(size)].copy().view(_POINT)[:, 0] if count else np.empty(0, _POINT)
    if not np.isfinite(head["xyz"]).all():
        raise reader.fail("damaged: a point is not finite")
    if len(np.unique(head["id"])) != count:
        raise reader.fail("damaged: a point comes twice")
    # Observation k of point p lies 8 bytes after another behind p's head.
    within = np.arange(total) - np.repeat(offsets[:-1], np.diff(offsets))
    place = np.repeat(starts + size, np.diff(offsets)) + 8 * within
    elements = (
        raw[place[:, None] + np.arange(8)].copy().view(_ELEMENT)[:, 0] if total else np.empty(0, _ELEMENT)
    )
    return BinaryPoints(
        head["id"], head["xyz"], head["rgb"], head["error"], offsets, elements["image"], elements["index"]
    )


def _rigs(reader: _Reader, cameras: set[int]) -> dict[int, set[tuple[int, int]]]:
    """Sensors of each rig."""
    rigs: dict[int, set[tuple[int, int]]] = {}
    taken: set[tuple[int, int]] = set()
    for _ in range(reader.count(8, "rigs")):
        identity, count = reader.unpack(struct.Struct("<II"), "a rig")
        sensors: list[tuple[int, int]] = []
        for position in range(count):
            sensors.append(reader.unpack(_SENSOR, "a sensor"))
            if position > 0:  # the first is the rig's own frame of reference
                (has_pose,) = reader.unpack(struct.Struct("<B"), "a sensor")
                if has_pose > 1:
                    raise reader.fail(
                        f"damaged: rig {identity} has a sensor that is neither posed nor unposed"
                    )
                if has_pose:
                    pose = reader.unpack(struct.Struct("<7d"), "a sensor's pose")
                    reader.pose(pose, f"a sensor of rig {identity}")
        if identity in rigs or len(set(sensors)) != len(sensors) or taken & set(sensors):
            raise reader.fail(f"damaged: rig {identity} or one of its sensors comes twice")
        for kind, sensor in sensors:
            if kind not in (_CAMERA_SENSOR, 1) or (kind == _CAMERA_SENSOR and sensor not in cameras):
                raise reader.fail(f"damaged: rig {identity} refers to a sensor that is not there")
        taken |= set(sensors)
        rigs[identity] = set(sensors)
    reader.finish()
    return rigs


def _frames(reader: _Reader, rigs: dict[int, set[tuple[int, int]]], images: _Images) -> None:
    seen: set[int] = set()
    data_ids: set[int] = set()
    for _ in range(reader.count(8 + 56 + 4, "frames")):
        identity, rig = reader.unpack(struct.Struct("<II"), "a frame")
        pose = reader.unpack(struct.Struct("<7d"), "a frame's pose")
        (count,) = reader.unpack(struct.Struct("<I"), "a frame")
        if identity in seen or rig not in rigs:
            raise reader.fail(
                f"damaged: frame {identity} comes twice or refers to a rig that is not in rigs.bin"
            )
        reader.pose(pose, f"frame {identity}")
        seen.add(identity)
        for _ in range(count):
            kind, sensor, data = reader.unpack(struct.Struct("<iIQ"), "a frame's image")
            if (kind, sensor) not in rigs[rig]:
                raise reader.fail(f"damaged: frame {identity} refers to a sensor that its rig does not have")
            if kind != _CAMERA_SENSOR:
                continue
            if data in data_ids or images.camera_of.get(data) != sensor:
                raise reader.fail(f"damaged: frame {identity} refers to an image that is not in images.bin")
            data_ids.add(data)
    reader.finish()
    if data_ids != set(images.camera_of):
        raise reader.fail("damaged: images.bin holds images that belong to no frame")
