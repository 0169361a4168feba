"""Rotations as the direction of one axis and the turn about it, each as fine as a Gaussian's shape needs.

A needle needs its direction exactly and hardly its turn about itself, a disc its normal, a ball nothing. Axes may be
turned over: directions are those of a half sphere, turns those below half a turn.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat.codecs.quantize import mixing_decode, mixing_encode, nearest_before, range_decode, range_encode
from splat.core.rotations import matrix_to_quat, quat_to_matrix

# Finest levels: rings 0.25 degrees apart; 128 turns.
LARGEST_SWING = 18
LARGEST_TWIST = 14
Integers = npt.NDArray[np.int64]


@functools.lru_cache(maxsize=1)
def _rings() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Level -> number of rings, place of its first; ring -> directions on it; running sum of these from 0."""
    counts = [1, *(round(2 ** ((level - 1) / 2)) for level in range(1, LARGEST_SWING + 1))]
    directions = [1]
    for count in counts[1:]:
        between = math.pi / 2 / count
        directions += [round(4 * count * math.sin((k + 0.5) * between)) for k in range(count)]
    rings = torch.tensor(counts)
    return (
        rings,
        rings.cumsum(0) - rings,
        torch.tensor(directions),
        torch.tensor([0, *directions]).cumsum(0),
    )


def directions(swing: Tensor) -> Tensor:
    """int64 of the shape of `swing`: the number of directions of each level."""
    rings, first, _, sums = _rings()
    rings, first, sums = rings.to(swing.device), first.to(swing.device), sums.to(swing.device)
    return sums[first[swing] + rings[swing]] - sums[first[swing]]


def turns(twist: Tensor) -> Tensor:
    """int64 of the shape of `twist`: the number of turns of each level."""
    return torch.exp2(twist.double() / 2).round().long()


def levels(swing: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """The levels whose cells have about these widths, in radians."""
    rings = 1 + 2 * torch.log2(math.pi / 2 / swing.double())
    count = 2 * torch.log2(math.pi / twist.double())
    return rings.round().clamp(0, LARGEST_SWING).long(), count.round().clamp(0, LARGEST_TWIST).long()


def encode_rotations(quats: Tensor, levels: Tensor) -> Tensor:
    """[N] int64: place of the direction, times the number of turns, plus place of the turn.

    Args:
        quats: [N, 4] wxyz, of any length.
        levels: [N, 3] int64: of the swing, of the twist, and the axis whose direction is told: 0, 1 or 2.
    """
    swing, twist, axis = levels.unbind(1)
    ring_counts, first, per_ring, sums = (table.to(quats.device) for table in _rings())
    matrix = quat_to_matrix(torch.nn.functional.normalize(quats.detach().double(), dim=1))
    direction, beside = _column(matrix, axis), _column(matrix, (axis + 1) % 3)
    direction = torch.where(direction[:, 2:] < 0, -direction, direction)
    rings = ring_counts[swing]
    polar = torch.arccos(direction[:, 2].clamp(-1, 1)) / (math.pi / 2)
    ring = first[swing] + torch.minimum((polar * rings).long(), rings - 1)
    around = torch.atan2(direction[:, 1], direction[:, 0]) / (2 * math.pi)
    place = (around * per_ring[ring]).floor().long() % per_ring[ring]
    number = sums[ring] - sums[first[swing]] + place
    one, two = _beside(_direction(number, swing))
    turn = torch.atan2((beside * two).sum(1), (beside * one).sum(1)) / math.pi
    count = turns(twist)
    return number * count + (turn * count).floor().long() % count


def decode_rotations(labels: Tensor, levels: Tensor) -> Tensor:
    """[N, 4] float32 unit quaternions wxyz, of the middles of the cells."""
    swing, twist, axis = levels.unbind(1)
    count = turns(twist)
    direction = _direction(torch.div(labels, count, rounding_mode="floor"), swing)
    one, two = _beside(direction)
    turn = ((labels % count + 0.5) * math.pi / count)[:, None]
    beside = turn.cos() * one + turn.sin() * two
    columns = torch.stack([direction, beside, torch.linalg.cross(direction, beside)], 2)
    # The told axis is the first here; it goes to its place, the others follow in turn.
    places = (torch.arange(3, device=labels.device) - axis[:, None]) % 3
    return matrix_to_quat(columns.gather(2, places[:, None].expand(-1, 3, -1))).float()


def _direction(number: Tensor, swing: Tensor) -> Tensor:
    """[N, 3] float64 directions by their numbers."""
    ring_counts, first, per_ring, sums = (table.to(number.device) for table in _rings())
    place = number + sums[first[swing]]
    ring = torch.searchsorted(sums, place, right=True) - 1
    polar = (ring - first[swing] + 0.5) * (math.pi / 2) / ring_counts[swing]
    polar = torch.where(swing == 0, 0.0, polar)
    around = (place - sums[ring] + 0.5) * (2 * math.pi) / per_ring[ring]
    return torch.stack([polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()], 1)


def _beside(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors perpendicular to unit vectors of positive z and to each other (Duff et al. 2017)."""
    x, y, z = direction.unbind(1)
    a = -1 / (1 + z)
    b = x * y * a
    return torch.stack([1 + x * x * a, b, -x], 1), torch.stack([b, 1 + y * y * a, -y], 1)


def _column(matrix: Tensor, column: Tensor) -> Tensor:
    return matrix.gather(2, column[:, None, None].expand(-1, 3, 1))[:, :, 0]


def direction_vectors(level: int) -> Tensor:
    """[K, 3] float64 all directions of a level of the swing above 0."""
    counts, first, per_ring, _ = _rings()
    count = int(counts[level])
    widths = per_ring[int(first[level]) : int(first[level]) + count]
    ring = torch.arange(count).repeat_interleave(widths)
    place = torch.arange(len(ring)) - (widths.cumsum(0) - widths)[ring]
    polar = (ring.double() + 0.5) * (math.pi / 2 / count)
    around = (place.double() + 0.5) * (2 * math.pi) / widths[ring].double()
    return torch.stack([polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()], 1)


def numbers_of(labels: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """[N] the place of the direction, and that of the turn."""
    count = turns(levels[:, 1])
    return torch.div(labels, count, rounding_mode="floor"), labels % count


def labels_of(direction: Tensor, turn: Tensor, levels: Tensor) -> Tensor:
    """[N] the labels of `numbers_of`."""
    return direction * turns(levels[:, 1]) + turn


def turns_to_parts(numbers: Tensor, levels: Tensor, cells: Integers) -> list[bytes]:
    """The places of the turns [N] as bytes: a part for each level of the twist, Gaussians in their order.

    Args:
        cells: [N, 3] of the centres: rotations resemble those of the same level that are close.
    """
    return _to_parts(numbers, levels, 1, cells)


def turns_from_parts(parts: list[bytes], levels: Tensor, cells: Integers) -> Tensor:
    """[N] the places of `turns_to_parts`; ValueError where the bytes cannot come from it."""
    return _from_parts(parts, levels, 1, cells)


def directions_to_parts(numbers: Tensor, levels: Tensor, cells: Integers) -> list[bytes]:
    """The places of the directions [N] likewise, as version 3 of the container has them."""
    return _to_parts(numbers, levels, 0, cells)


def directions_from_parts(parts: list[bytes], levels: Tensor, cells: Integers) -> Tensor:
    """[N] the places of `directions_to_parts`; ValueError where the bytes cannot come from it."""
    return _from_parts(parts, levels, 0, cells)


def _to_parts(numbers: Tensor, levels: Tensor, which: int, cells: Integers) -> list[bytes]:
    axis = levels[:, 2].numpy()
    parts = []
    for at, size in enumerate(_sizes()[which]):
        chosen = (levels[:, which] == at).numpy()
        parts.append(_coded(numbers.numpy()[chosen], size, cells[chosen], axis[chosen]))
    return parts


def _from_parts(parts: list[bytes], levels: Tensor, which: int, cells: Integers) -> Tensor:
    found = torch.zeros(len(levels), dtype=torch.int64)
    axis = levels[:, 2].numpy()
    for at, (part, size) in enumerate(zip(parts, _sizes()[which], strict=True)):
        chosen = (levels[:, which] == at).numpy()
        found[torch.from_numpy(chosen)] = _decoded(part, size, cells[chosen], axis[chosen])
    return found


def _sizes() -> tuple[list[int], list[int]]:
    """Numbers of directions and of turns, level by level."""
    swings, twists = torch.arange(LARGEST_SWING + 1), torch.arange(LARGEST_TWIST + 1)
    return directions(swings).tolist(), turns(twists).tolist()


def _coded(symbols: Integers, size: int, cells: Integers, axis: Integers) -> bytes:
    """By their neighbours, or evenly where that is shorter."""
    if len(symbols) == 0 or size == 1:
        return b""
    even = b"\0" + range_encode(symbols, np.ones(size, np.int64))
    mixed = b"\1" + mixing_encode(symbols, size, nearest_before(cells), [axis])
    return min(even, mixed, key=len)


def _decoded(data: bytes, size: int, cells: Integers, axis: Integers) -> Tensor:
    n = len(cells)
    if n == 0 or size == 1:
        if data:
            raise ValueError("bytes where no rotations are")
        return torch.zeros(n, dtype=torch.int64)
    if data[:1] == b"\0":
        return range_decode(data[1:], np.ones(size, np.int64), n)
    if data[:1] == b"\1":
        return mixing_decode(data[1:], size, n, nearest_before(cells), [axis])
    raise ValueError("the rotations are damaged")
