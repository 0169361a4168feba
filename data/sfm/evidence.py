"""How far a model agrees with what pairs of photographs, each by itself, tell: its worth beside other models.

Mappers keep the points that fit their poses and drop the rest, so the reprojection error of a wrong model can be the
smallest. The matches of all verified pairs were there before any model: a right one explains nearly all of them, one
that joins parts of a scene at the wrong place contradicts those between the parts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

_MAX_ERROR = 4.0  # pixels; the matches were verified to as much (COLMAP's default)
_WRONG = 0.1  # of verified matches, at most: right models of photographs contradict 3 to 9 of 100


def agreement(model: Any, database: Path) -> tuple[int, int]:
    """(explained, contradicted): matches of verified pairs with both photographs in the model whose Sampson error under
    the model's relative pose is at most 4 pixels, and the other ones."""
    import pycolmap

    posed = set(model.reg_image_ids())
    rays: dict[int, np.ndarray] = {}
    explained = contradicted = 0
    store = pycolmap.Database.open(database)
    try:
        for pair, geometry in zip(*store.read_two_view_geometries(), strict=True):
            matches = np.asarray(geometry.inlier_matches)
            pictures = [model.image(i) for i in pycolmap.pair_id_to_image_pair(pair) if i in posed]
            if len(pictures) < 2 or not len(matches):
                continue
            for image in pictures:
                if image.image_id not in rays:
                    keypoints = store.read_keypoints(image.image_id)[:, :2].astype(np.float64)
                    tangents = np.asarray(model.camera(image.camera_id).cam_from_img(keypoints))
                    rays[image.image_id] = np.insert(tangents.reshape(-1, 2), 2, 1.0, axis=1)
            first, second = (rays[i.image_id][matches[:, n]] for n, i in enumerate(pictures))
            focal = np.mean([model.camera(image.camera_id).mean_focal_length() for image in pictures])
            error = focal * np.sqrt(_sampson(_essential(*pictures), first, second))
            fits = int((error <= _MAX_ERROR).sum())
            explained, contradicted = explained + fits, contradicted + len(matches) - fits
    finally:
        store.close()
    return explained, contradicted


def worth(explained: int, contradicted: int) -> float:
    """The logarithm of how much likelier these matches are where the model is right than if chance, at even odds,
    decided what it explains. Matches of photographs without a pose say nothing either way."""
    return explained * math.log((1 - _WRONG) / 0.5) + contradicted * math.log(_WRONG / 0.5)


def _essential(first: Any, second: Any) -> np.ndarray:
    """[3, 3] matrix E with y^T E x = 0 for rays x, y of one point in two posed images."""
    relative = (second.cam_from_world() * first.cam_from_world().inverse()).matrix()
    x, y, z = relative[:, 3]
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:, :3]


def _sampson(essential: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[N] squared first-order distances of ray pairs [N, 3] from their epipolar lines, tangents squared; NaN where the
    lens has no ray (Hartley and Zisserman 2004, section 11.4.3)."""
    lines, back = first @ essential.T, second @ essential
    gradient = (lines[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1)
    return (second * lines).sum(1) ** 2 / gradient
