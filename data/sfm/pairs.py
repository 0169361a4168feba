"""Which pairs of photographs are compared.

All of them where they are few; else each with its neighbours in the order of their names, and with those that look
alike. What looks alike is told by VLAD descriptors (Jegou, Douze, Schmid and Perez 2010) over a vocabulary of the
set's own SIFT features, so that nothing has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splat.data.sfm.options import Matching
from splat.data.sfm.picture import Picture

Pair = tuple[int, int]

ALL = 60  # photographs up to which all pairs are compared
_OVERLAP = 10  # neighbours on each side in a video
_FAR = (16, 32, 64, 128)  # and some further away, which hold long tracks together
_BESIDE = 3  # neighbours on each side of photographs, which are often taken in order
_ALIKE = 20  # photographs that look most alike
_LOOPS = 5  # the same for frames of a video, far away in it
_WORDS = 64
_SAMPLE = 400  # features of a photograph for the vocabulary
_USED = 2000  # features of a photograph for its descriptor, the largest ones


def choose(pictures: Sequence[Picture], matching: Matching, database: Path, seed: int) -> list[Pair]:
    """Pairs of positions in `pictures`, the smaller first, in an order that keeps the same photographs together."""
    count = len(pictures)
    if matching == "auto":
        video = all(picture.sequence for picture in pictures)
        matching = "exhaustive" if count <= ALL else "sequential" if video else "retrieval"
    if matching == "exhaustive":
        pairs = {(i, j) for i in range(count) for j in range(i + 1, count)}
    else:
        alike = similarities(pictures, database, seed)
        pairs = _along(pictures, matching) | _looking_alike(pictures, alike, matching)
    block = 16
    return sorted(pairs, key=lambda pair: (pair[0] // block, pair[1] // block, pair))


def _along(pictures: Sequence[Picture], matching: Matching) -> set[Pair]:
    """Neighbours within each video, and within each folder of photographs."""
    pairs = set()
    for members in _sequences(pictures):
        moving = matching == "sequential" or bool(pictures[members[0]].sequence)
        steps = [*range(1, _OVERLAP + 1), *_FAR] if moving else range(1, _BESIDE + 1)
        for step in steps:
            pairs |= set(zip(members[:-step], members[step:], strict=True))
    return pairs


def _sequences(pictures: Sequence[Picture]) -> list[list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for index, picture in enumerate(pictures):
        folder = "" if picture.sequence else Path(picture.name).parent.as_posix()
        groups.setdefault((picture.sequence, folder), []).append(index)
    return list(groups.values())


def _looking_alike(pictures: Sequence[Picture], alike: np.ndarray, matching: Matching) -> set[Pair]:
    pairs = set()
    place = {i: k for members in _sequences(pictures) for k, i in enumerate(members)}
    for i, row in enumerate(alike):
        order = [int(j) for j in np.argsort(-row, kind="stable") if j != i]
        if matching == "sequential" or pictures[i].sequence:
            near = {
                j
                for j in order
                if pictures[j].sequence == pictures[i].sequence and abs(place[j] - place[i]) <= _OVERLAP
            }
            order, wanted = [j for j in order if j not in near], _LOOPS
        else:
            wanted = _ALIKE
        pairs |= {(min(i, j), max(i, j)) for j in order[:wanted]}
    return pairs


def similarities(pictures: Sequence[Picture], database: Path, seed: int) -> np.ndarray:
    """[N, N] cosine of the VLAD descriptors of the photographs, float32; 0 for those without features."""
    import pycolmap
    from scipy.cluster.vq import kmeans2

    store = pycolmap.Database.open(database)
    try:
        ids = {image.name: image.image_id for image in store.read_all_images()}
        features = [_strongest(store, ids[picture.name]) for picture in pictures]
    finally:
        store.close()
    generator = np.random.default_rng([seed, 3])
    sample = np.concatenate(
        [f[generator.choice(len(f), min(_SAMPLE, len(f)), replace=False)] for f in features if len(f)]
    )
    words, _ = kmeans2(sample, min(_WORDS, len(sample)), iter=15, minit="++", rng=generator)
    vlad = np.stack([_vlad(f, words.astype(np.float32)) for f in features])
    return vlad @ vlad.T


def _strongest(store, identity: int) -> np.ndarray:
    """[n, 128] float32 RootSIFT of the features of the largest scale."""
    descriptors = np.asarray(store.read_descriptors(identity).data, dtype=np.float32)
    keypoints = store.read_keypoints(identity)  # x, y and the 2x2 shape row by row: a scaled rotation
    if not len(descriptors):
        return np.zeros((0, 128), dtype=np.float32)
    strongest = descriptors[np.argsort(-np.hypot(keypoints[:, 2], keypoints[:, 4]), kind="stable")[:_USED]]
    return np.sqrt(strongest / np.maximum(strongest.sum(1, keepdims=True), 1e-6))


def _vlad(features: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[words * 128] sum of differences from the nearest word, normalised a word and as a whole."""
    if not len(features):
        return np.zeros(words.size, dtype=np.float32)
    nearest = np.argmin((words**2).sum(1) - 2 * features @ words.T, axis=1)
    total = np.zeros_like(words)
    np.add.at(total, nearest, features - words[nearest])
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6)
    return (total / np.maximum(np.linalg.norm(total), 1e-6)).ravel()
