"""COLMAP's text files, walked line by line. Layout: https://colmap.github.io/format.html"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splat.data.colmap_model import ModelImage, ModelPoints, check_images, check_points, damaged
from splat.data.intrinsics import MODELS
from splat.data.problems import DatasetError

_PARAMETERS = {name: count for name, count, _ in MODELS}


def count_images(folder: Path) -> int:
    """How many images images.txt holds."""
    return sum(1 for _ in _pose_lines(_read(folder / "images.txt")))


def walk(folder: Path) -> tuple[list[ModelImage], ModelPoints]:
    """Images and points of a text model; its cameras are checked and left to pycolmap.

    Raises:
        DatasetError: a file is truncated or damaged.
    """
    cameras = _cameras(folder / "cameras.txt")
    images = _images(folder / "images.txt")
    check_images(folder / "images.txt", images, cameras)
    points = _points(folder / "points3D.txt")
    check_points(folder / "points3D.txt", points)
    return images, points


def write_poses(folder: Path, images: list[ModelImage]) -> None:
    """images.txt without observations, and points3D.txt without points."""
    lines = [f"{i.identity} {' '.join(map(repr, i.pose))} {i.camera} {i.name}\n\n" for i in images]
    (folder / "images.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "points3D.txt").write_text("")


def observations(folder: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each image its id, [K, 2] float64 pixels and [K] uint64 ids of the points seen there (all ones: of none).

    Raises:
        DatasetError: the file is damaged.
    """
    path = folder / "images.txt"
    lines = _read(path)
    for number, line in _pose_lines(lines):
        words = (
            lines[number].split() if number < len(lines) else []
        )  # the line after it; `number` counts from 1
        try:
            identity = int(line.split(maxsplit=1)[0])
            pixels = np.array([words[0::3], words[1::3]], np.float64).T
            points = np.array([int(word) for word in words[2::3]], np.int64).astype(np.uint64)
        except (ValueError, OverflowError) as error:
            raise _broken(path, number + 1) from error
        if len(words) % 3:
            raise _broken(path, number + 1)
        yield identity, pixels, points


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise damaged(path, "damaged: it is not text") from error
    except OSError as error:
        raise DatasetError("model-unreadable", path, "cannot be read", "change its permissions") from error


def _content(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Line number and line of those that hold something."""
    for number, line in enumerate(lines, start=1):
        if (text := line.strip()) and not text.startswith("#"):
            yield number, text


def _pose_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Of the two lines of each image the first; the second, of observations, may be empty."""
    skip = False
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if skip:
            skip = False
        elif text and not text.startswith("#"):
            yield number, text
            skip = True


def _check_count(path: Path, lines: list[str], count: int, what: str) -> None:
    """A text file that ends early is still valid text: what its head announces must be there."""
    for line in lines[:8]:
        announced = re.match(r"# Number of \w+: (\d{1,12})", line)
        if announced and count < int(announced[1]):
            raise damaged(path, f"truncated: it announces {announced[1]} {what} and holds {count}")


def _broken(path: Path, number: int) -> DatasetError:
    return damaged(path, f"damaged: line {number} is not what it should be")


def _cameras(path: Path) -> set[int]:
    lines = _read(path)
    ids: set[int] = set()
    for number, line in _content(lines):
        words = line.split()
        try:
            identity, model = int(words[0]), words[1]
            if model not in _PARAMETERS:
                cause = f"camera {identity} has the unknown camera model {model!r}"
                raise DatasetError("camera-model", path, cause, f"use one of {', '.join(_PARAMETERS)}")
            sizes, params = [int(word) for word in words[2:4]], [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise _broken(path, number) from error
        if len(sizes) != 2 or not all(0 <= s < 2**63 for s in sizes) or len(params) != _PARAMETERS[model]:
            raise _broken(path, number)
        if not 0 <= identity < 2**32 or identity in ids:
            raise damaged(path, f"damaged: camera {identity} comes twice or is no id")
        ids.add(identity)
    _check_count(path, lines, len(ids), "cameras")
    return ids


def _images(path: Path) -> list[ModelImage]:
    lines = _read(path)
    images = []
    for number, line in _pose_lines(lines):
        words = line.split(maxsplit=9)
        try:
            pose = tuple(float(word) for word in words[1:8])
            image = ModelImage(int(words[0]), pose, int(words[8]), words[9])
        except (ValueError, IndexError) as error:
            raise _broken(path, number) from error
        if not 0 <= image.identity < 2**32:
            raise _broken(path, number)
        images.append(image)
    _check_count(path, lines, len(images), "images")
    return images


def _points(path: Path) -> ModelPoints:
    lines = _read(path)
    ids, values, colours, tracks = [], [], [], []
    for number, line in _content(lines):
        words = line.split()
        try:
            identity, colour = int(words[0]), [int(word) for word in words[4:7]]
            value = [float(words[i]) for i in (1, 2, 3, 7)]
            track = [int(word) for word in words[8::2]]
        except (ValueError, IndexError) as error:
            raise _broken(path, number) from error
        in_range = 0 <= identity < 2**64 and all(0 <= c <= 255 for c in colour)
        if not in_range or not all(0 <= image < 2**32 for image in track) or len(words) % 2:
            raise _broken(path, number)
        ids.append(identity)
        values.append(value)
        colours.append(colour)
        tracks.append(track)
    _check_count(path, lines, len(ids), "points")
    numbers = np.array(values, np.float64).reshape(-1, 4)
    offsets = np.concatenate([[0], np.cumsum([len(track) for track in tracks], dtype=np.int64)]).astype(
        np.int64
    )
    observed = np.array([image for track in tracks for image in track], np.int64)
    rgb = np.array(colours, np.uint8).reshape(-1, 3)
    return ModelPoints(np.array(ids, np.uint64), numbers[:, :3], rgb, numbers[:, 3], offsets, observed)
