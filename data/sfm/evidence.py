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
    """(explained, contradicted): matches of verified pairs with both photographs in the model."""
    counts = list(by_pair(model, database).values())
    explained = sum(count for count, _ in counts)
    return explained, sum(total for _, total in counts) - explained


def by_pair(model: Any, database: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """{names of two photographs in the model: (explained, all)} matches of the pairs that the database has verified.

    Explained are those whose Sampson error under the model's relative pose is at most 4 pixels.
    """
    import pycolmap

    posed = {model.image(identity).name: model.image(identity) for identity in model.reg_image_ids()}
    counts = {}
    rays: dict[str, np.ndarray] = {}
    store = pycolmap.Database.open(database)
    try:
        names = {image.image_id: image.name for image in store.read_all_images()}
        for pair, geometry in zip(*store.read_two_view_geometries(), strict=True):
            matches = np.asarray(geometry.inlier_matches)
            ids = pycolmap.pair_id_to_image_pair(pair)
            a, b = (names[identity] for identity in ids)
            if a not in posed or b not in posed or not len(matches):
                continue
            for identity, name in zip(ids, (a, b), strict=True):
                if name not in rays:
                    keypoints = store.read_keypoints(identity)[:, :2].astype(np.float64)
                    tangents = np.asarray(model.camera(posed[name].camera_id).cam_from_img(keypoints))
                    rays[name] = np.insert(tangents.reshape(-1, 2), 2, 1.0, axis=1)
            focal = np.mean([model.camera(posed[name].camera_id).mean_focal_length() for name in (a, b)])
            squared = _sampson(_essential(posed[a], posed[b]), rays[a][matches[:, 0]], rays[b][matches[:, 1]])
            counts[a, b] = int((focal * np.sqrt(squared) <= _MAX_ERROR).sum()), len(matches)
    finally:
        store.close()
    return counts


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
