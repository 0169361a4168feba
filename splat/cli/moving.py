"""The move of `splat export`: --transform, --rotate, --scale and --translate as one similarity."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.core import DataError, UsageError
from splat.core.transforms import Similarity

# A matrix written with six digits is a rotation times a scale to about this much.
_ROUNDING = 1e-4


def similarity(args: Any) -> Similarity:
    """The move that the arguments describe: the matrix of the file first, then turn, enlarge, shift.

    Raises:
        UsageError: numbers that are not finite, or a scale that is not positive.
        DataError: a file that holds no similarity.
    """
    numbers = [*(args.rotate or ()), *(args.translate or ()), 1.0 if args.scale is None else args.scale]
    if not all(math.isfinite(value) for value in numbers):
        raise UsageError("--rotate, --scale and --translate take finite numbers")
    scale = 1.0 if args.scale is None else args.scale
    if scale <= 0:
        raise UsageError(f"--scale {scale:g}: it must be above 0 (a mirrored scene has other harmonics)")
    shift = torch.tensor(args.translate or (0.0, 0.0, 0.0), dtype=torch.float64)
    move = Similarity(_rotation(args.rotate or (0.0, 0.0, 0.0)), shift, scale)
    return move if args.transform is None else move.after(read_matrix(args.transform))


def _rotation(degrees: tuple[float, float, float]) -> Tensor:
    """[3, 3] float64: about the x, then the y, then the z axis of the scene's frame."""
    rotation = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(degrees):
        # Whole quarter turns are exact: a sine of 6e-17 would leave no axis where it was.
        quarter = angle / 90
        exact = quarter == round(quarter)
        sine = float((0, 1, 0, -1)[round(quarter) % 4]) if exact else math.sin(math.radians(angle))
        cosine = float((1, 0, -1, 0)[round(quarter) % 4]) if exact else math.cos(math.radians(angle))
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = torch.eye(3, dtype=torch.float64)
        step[i, i], step[i, j], step[j, i], step[j, j] = cosine, -sine, sine, cosine
        rotation = step @ rotation
    return rotation


def read_matrix(path: Path) -> Similarity:
    """The similarity of a file with a 4x4 (or 3x4) matrix, JSON or numbers between blanks or commas."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot read the matrix: {error.strerror}; check the name") from error
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text of 16 numbers") from None
    try:
        for mark in "[],;":
            text = text.replace(mark, " ")
        values = [float(json.loads(word)) for word in text.split()]
        matrix = torch.tensor(values, dtype=torch.float64).reshape(-1, 4)
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{path}: not a text of 16 numbers, a 4x4 matrix row by row") from None
    if matrix.shape[0] not in (3, 4) or not bool(torch.isfinite(matrix).all()):
        raise DataError(f"{path}: expected 16 finite numbers (or the first 12), found {len(values)}")
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if matrix.shape[0] == 4 and not torch.equal(matrix[3], last):
        raise DataError(f"{path}: the last row of the matrix is not 0 0 0 1, so it is no similarity")
    part = matrix[:3, :3]
    scale = float(torch.linalg.det(part).abs()) ** (1 / 3)
    if float(torch.linalg.det(part)) <= 0:
        raise DataError(f"{path}: the matrix mirrors or flattens, which the harmonics cannot follow")
    off = part.T @ part / scale**2 - torch.eye(3, dtype=torch.float64)
    if float(off.abs().max()) > _ROUNDING:
        raise DataError(f"{path}: the matrix shears or scales unevenly; a rotation with one scale is needed")
    left, _, right = torch.linalg.svd(part)  # the nearest rotation: digits were rounded
    return Similarity(left @ right, matrix[:3, 3], scale)


def turn(move: Similarity) -> Similarity | None:
    """The move without its shift; None where nothing is left of it."""
    still = torch.equal(move.rotation, torch.eye(3, dtype=torch.float64)) and move.scale == 1
    return None if still else Similarity(move.rotation, torch.zeros(3, dtype=torch.float64), move.scale)


def turned_axis(axis: str, move: Similarity) -> str | None:
    """The name of where `move` takes the axis of that name ("-y"); None where that is no axis."""
    direction = torch.zeros(3, dtype=torch.float64)
    direction["xyz".index(axis[-1])] = -1.0 if axis.startswith("-") else 1.0
    there = move.rotation @ direction
    largest = int(there.abs().argmax())
    if float(there[largest].abs()) < 1 - 1e-6:
        return None
    return ("-" if there[largest] < 0 else "") + "xyz"[largest]
