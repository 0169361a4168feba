"""Unit quaternions as the place of the largest component and the three others."""

from __future__ import annotations

import numpy as np


def insert_largest(three: np.ndarray, largest: np.ndarray, place: np.ndarray) -> np.ndarray:
    """[N, 4] float32: `largest` [N] at `place` [N], the components `three` [N, 3] in order around it."""
    out = np.empty((len(three), 4), np.float32)
    for at in range(4):
        # Component `at` is the largest, or the one of the three that stands there.
        before = three[:, min(at, 2)]
        after = three[:, max(at - 1, 0)]
        out[:, at] = np.where(place == at, largest, np.where(place > at, before, after))
    return out


def split_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The three components [N, 3] beside the largest of the unit quaternion, made positive, and its place [N]."""
    # In float64, scaled first: neither huge nor tiny components may overflow, and zero stands for no rotation.
    wide = quats.astype(np.float64)
    wide[~wide.any(1)] = np.eye(4)[0]
    place = np.abs(wide).argmax(1)
    wide /= np.take_along_axis(wide, place[:, None], 1)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[place]
    return np.take_along_axis(wide, others, 1).astype(np.float32), place


def quat_error(each: float) -> float:
    """The largest error of a component, the largest one's included, if each of the three others is off by `each`.

    The largest, w = sqrt(1 - |v|^2) with w >= 1/2 and |v_i| <= w, is off by at most |v| |dv| / w + second order;
    |v| / w <= sqrt(3), |dv| <= sqrt(3) each.
    """
    return 3 * each + 20 * each * each
