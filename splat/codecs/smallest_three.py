"""Unit quaternions as the place of the largest component and the three others."""

from __future__ import annotations

import numpy as np


def split_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The three components [N, 3] beside the largest of the unit quaternion, made positive, and its place [N]."""
    # A column at a time, scaled first: neither huge nor tiny components may overflow. Zero stands for no rotation.
    columns = np.ascontiguousarray(quats.T, np.float64)
    place = np.zeros(len(quats), np.int64)
    size = np.abs(columns[0])
    for at in range(1, 4):
        other = np.abs(columns[at])
        larger = other > size
        place[larger] = at
        np.maximum(size, other, out=size)
    zero = size == 0
    columns[0, zero] = size[zero] = 1
    columns /= size
    norm = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    largest = np.choose(place, columns)  # 1 or -1
    columns *= largest / norm
    three = np.empty((len(quats), 3), np.float32)
    for at in range(3):
        # The component there, or the next one where the largest stands before it.
        three[:, at] = np.where(place <= at, columns[at + 1], columns[at])
    return three, place


def quat_error(each: float) -> float:
    """The largest error of a component, the largest one's included, if each of the three others is off by `each`.

    The largest, w = sqrt(1 - |v|^2) with w >= 1/2 and |v_i| <= w, is off by at most |v| |dv| / w + second order;
    |v| / w <= sqrt(3), |dv| <= sqrt(3) each.
    """
    return 3 * each + 20 * each * each
