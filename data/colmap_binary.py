"""COLMAP's binary files, walked byte by byte. Layout: https://colmap.github.io/format.html"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splat.data.colmap_model import ModelImage, ModelPoints, check_images, check_points, damaged
from splat.data.intrinsics import MODELS
from splat.data.problems import DatasetError

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")])
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
_ELEMENT_BYTES = 8  # image id, index of the observation


class _Reader:
    """Takes values from a file's bytes; running out of them is an error that says so."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                "model-unreadable", path, "cannot be read", "change its permissions"
            ) from error

    def need(self, size: int, what: str) -> int:
        """Move on by `size` bytes; returns where they start."""
        start = self.at
        if size > len(self.data) - start:
            raise damaged(self.path, f"truncated at byte {len(self.data)}, inside {what}")
        self.at += size
        return start

    def unpack(self, layout: struct.Struct, what: str) -> tuple:
        return layout.unpack_from(self.data, self.need(layout.size, what))

    def count(self, smallest: int, what: str) -> int:
        """A number of records of at least `smallest` bytes each."""
        (count,) = self.unpack(_COUNT, f"the number of {what}")
        if count * smallest > len(self.data) - self.at:
            cause = f"truncated or damaged: it announces {count} {what} in {len(self.data)} bytes"
            raise damaged(self.path, cause)
        return count

    def finish(self) -> None:
        if self.at != len(self.data):
            raise damaged(self.path, f"damaged: {len(self.data) - self.at} bytes after its end")


def count_images(folder: Path) -> int:
    """How many images a model announces, from the first bytes of images.bin; 0 where it has not even those."""
    with (folder / "images.bin").open("rb") as file:
        head = file.read(8)
    return int.from_bytes(head, "little") if len(head) == 8 else 0


def walk(folder: Path) -> tuple[list[ModelImage], ModelPoints]:
    """Images and points of a binary model; its cameras are checked and left to pycolmap.

    Raises:
        DatasetError: a file is truncated or damaged.
    """
    cameras = _cameras(_Reader(folder / "cameras.bin"))
    images = _images(_Reader(folder / "images.bin"))
    check_images(folder / "images.bin", images, cameras)
    points = _points(_Reader(folder / "points3D.bin"))
    check_points(folder / "points3D.bin", points)
    return images, points


def observations(folder: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each image its id, [K, 2] float64 pixels and [K] uint64 ids of the points seen there (all ones: of none).

    Raises:
        DatasetError: the file is truncated or damaged.
    """
    reader = _Reader(folder / "images.bin")
    for image, start, count in _image_records(reader):
        seen = np.frombuffer(reader.data, _OBSERVATION, count, start)
        yield image.identity, seen["xy"], seen["point"]


def write_poses(folder: Path, images: list[ModelImage]) -> None:
    """images.bin without observations, and points3D.bin without points."""
    records = [
        _IMAGE.pack(image.identity, *image.pose, image.camera) + image.name.encode() + b"\0" + _COUNT.pack(0)
        for image in images
    ]
    (folder / "images.bin").write_bytes(_COUNT.pack(len(images)) + b"".join(records))
    (folder / "points3D.bin").write_bytes(_COUNT.pack(0))


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
            raise damaged(reader.path, f"damaged: camera {identity} comes twice")
        ids.add(identity)
    reader.finish()
    return ids


def _images(reader: _Reader) -> list[ModelImage]:
    return [image for image, _, _ in _image_records(reader)]


def _image_records(reader: _Reader) -> Iterator[tuple[ModelImage, int, int]]:
    """Each image with the place and the number of its observations."""
    size = _OBSERVATION.itemsize
    for _ in range(reader.count(_IMAGE.size + 9, "images")):
        identity, *pose, camera = reader.unpack(_IMAGE, "an image's pose")
        end = reader.data.find(b"\0", reader.at)
        if end < 0:
            raise damaged(reader.path, f"truncated at byte {len(reader.data)}, inside an image's name")
        try:
            name = reader.data[reader.at : end].decode()
        except UnicodeDecodeError as error:
            raise damaged(reader.path, f"damaged: the name of image {identity} is not UTF-8") from error
        reader.at = end + 1
        count = reader.count(size, "observations")
        start = reader.need(size * count, "observations")
        yield ModelImage(identity, tuple(pose), camera, name), start, count
    reader.finish()


def _points(reader: _Reader) -> ModelPoints:
    size = _POINT.itemsize
    count = reader.count(size, "points")
    # The one loop that runs over millions: points differ in length, so each says where the next begins.
    places, lengths, at, end = [], [], reader.at, len(reader.data)
    for _ in range(count):
        if at + size > end:
            raise damaged(reader.path, f"truncated at byte {end}, inside a point")
        places.append(at)
        (length,) = _COUNT.unpack_from(reader.data, at + size - 8)
        lengths.append(length)
        at += size + _ELEMENT_BYTES * length
    reader.need(at - reader.at, "a point's track")
    reader.finish()
    starts = np.array(places, np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
    raw = np.frombuffer(reader.data, np.uint8)
    head = raw[starts[:, None] + np.arange(size)].view(_POINT)[:, 0] if count else np.empty(0, _POINT)
    # Observation k of point p lies k elements behind p's head; its first 4 bytes are the image's id.
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    place = np.repeat(starts + size, lengths) + _ELEMENT_BYTES * within
    images = raw[place[:, None] + np.arange(4)].view("<u4")[:, 0] if len(place) else np.empty(0, "<u4")
    return ModelPoints(head["id"], head["xyz"], head["rgb"], head["error"], offsets, images.astype(np.int64))
