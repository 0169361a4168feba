"""Scenes that were not trained for the container: codebooks by k-means, or those that training gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splat.codecs.quantize import assign, kmeans, tree_order
from splat.codecs.vq.basis import PARTS, Basis
from splat.codecs.vq.scene import Book, Quantized, cells_of, centres, cube, depths_of, widths
from splat.codecs.vq.turns import decode_rotations, encode_rotations, levels
from splat.core import Gaussians, UsageError

# Edge of a centre's cell as a share of the mean scale (geometric) of its codeword.
_CELL = 0.25
_ITERATIONS = 10
_TURN = 0.25


@dataclass(frozen=True)
class VqOptions:
    """Options of the vq container. A scene that was trained for it brings its own codebooks."""

    words: int = 1024
    """Most codewords of a codebook."""
    seed: int = 0
    """Of the codebooks' first words."""

    def __post_init__(self) -> None:
        if not 2 <= self.words <= 1 << 16:
            raise UsageError(f"vq: words must lie between 2 and 65536, got {self.words}")


def values_of(gaussians: Gaussians, name: str, basis: Basis) -> Tensor:
    """[N, D] the values of an attribute."""
    if name == "scale":
        return gaussians.log_scales
    if name == "opacity":
        return gaussians.logit_opacities[:, None]
    return basis.color(gaussians.sh) if name == "color" else basis.components(gaussians.sh, name)


def quantize(gaussians: Gaussians, options: VqOptions, learned: dict[str, Any] | None = None) -> Quantized:
    """The scene in indices.

    Args:
        learned: `origin`, `size`, `depths`, `turns`, `books` and `basis` of a Quantized, as the vq strategy exports
            them. A scene that it baked is met exactly; others take the nearest words.
    """
    if learned is None or set(learned["books"]) != set(widths(gaussians.sh_degree)):
        learned = _learn(gaussians, options)
    books: dict[str, Book] = learned["books"]
    basis: Basis = learned["basis"]
    labels = {name: _nearest(values_of(gaussians, name, basis), book, name) for name, book in books.items()}
    turns: Tensor = learned["turns"]
    labels["scale"] = _apart(gaussians, labels["scale"], learned)
    labels["rotation"] = encode_rotations(gaussians.quats, turns[labels["scale"]])
    origin, size, depths = learned["origin"], learned["size"], learned["depths"]
    place = gaussians.means.double() - origin
    if bool(((place < 0) | (place > size)).any()):  # moved since
        origin, grown = cube(gaussians.means)
        depths, size = depths_of(size / torch.exp2(depths.double()), grown), grown
    cells = cells_of(gaussians.means, depths[labels["scale"]], origin, size)
    scene = Quantized(origin, size, depths, turns, cells, labels, books, basis, gaussians.antialiased)
    return _tidy(scene)


def _apart(gaussians: Gaussians, label: Tensor, learned: dict[str, Any]) -> Tensor:
    """[N] of words of the scale that are stored as the same bytes those on whose cells the Gaussians lie.

    Codewords that follow their members may meet, and keep the cells and the levels of rotations that they had.
    """
    _, kind, members = torch.unique(
        learned["books"]["scale"].words, dim=0, return_inverse=True, return_counts=True
    )
    if len(members) == len(kind):
        return label
    quats = torch.nn.functional.normalize(gaussians.quats.double(), dim=1)
    best, least = label, torch.full((len(label),), torch.inf, dtype=torch.float64)
    by_kind = torch.argsort(kind, stable=True)
    first = members.cumsum(0) - members
    for number in range(int(members.max())):
        # The word of that number among its like, or the last of them.
        word = by_kind[first + torch.minimum(members - 1, torch.tensor(number))][kind[label]]
        depth, levels_of = learned["depths"][word], learned["turns"][word]
        cells = cells_of(gaussians.means, depth, learned["origin"], learned["size"])
        edge = learned["size"] / torch.exp2(depth.double())
        off = (centres(cells, depth, learned["origin"], learned["size"]) - gaussians.means).abs().amax(
            1
        ) / edge
        drawn = decode_rotations(encode_rotations(gaussians.quats, levels_of), levels_of)
        off += 1 - (drawn.double() * quats).sum(1).abs()
        better = off < least
        best, least = torch.where(better, word, best), torch.where(better, off, least)
    return best


def _tidy(scene: Quantized) -> Quantized:
    """The words that are used, in an order in which similar ones have the same first digits."""
    books, labels = {}, dict(scene.labels)
    depths, turns = scene.depths, scene.turns
    for name, book in scene.books.items():
        free = int(name in PARTS)  # label 0 has no word
        counts = torch.bincount(labels[name], minlength=len(book.words) + free)[free:]
        used = counts.nonzero()[:, 0]
        used = used[tree_order(book.values()[used], counts[used])]
        place = torch.zeros(len(book.words) + free, dtype=torch.int64)
        place[used + free] = torch.arange(len(used)) + free
        books[name], labels[name] = Book(book.words[used], book.low, book.step), place[labels[name]]
        if name == "scale":
            depths, turns = scene.depths[used], scene.turns[used]
    return replace(scene, books=books, labels=labels, depths=depths, turns=turns)


def _nearest(values: Tensor, book: Book, name: str) -> Tensor:
    """[N] int64 labels."""
    choices = book.values()
    if name in PARTS:
        choices = torch.cat([choices.new_zeros(1, choices.shape[1]), choices])
    return assign(values, choices) if len(values) else torch.zeros(0, dtype=torch.int64)


def _learn(gaussians: Gaussians, options: VqOptions) -> dict[str, Any]:
    books, basis, weights = {}, Basis.of(gaussians.sh), _weights(gaussians)
    for name in widths(gaussians.sh_degree):
        values = values_of(gaussians, name, basis)
        most = min(options.words, 256) if name == "opacity" else options.words
        centroids = values[:0]
        if len(values):
            centroids, _ = kmeans(values, most, seed=options.seed, iterations=_ITERATIONS, weights=weights)
        books[name] = Book.of(centroids)
    origin, size = cube(gaussians.means)
    return {
        "origin": origin,
        "size": size,
        "depths": depths_of(_CELL * books["scale"].values().mean(1).exp(), size),
        "turns": _turns(books["scale"].values()),
        "books": books,
        "basis": basis,
    }


def _weights(gaussians: Gaussians) -> Tensor:
    """[N] how much the errors of a Gaussian count: the root of the area that it shows at most, times its opacity.

    That lies between all alike, which spends words on what nobody sees (0.8 dB worse on fox), and the area itself,
    which spends them on the few largest.
    """
    largest = gaussians.log_scales.sort(1, descending=True).values[:, :2].sum(1)
    weights = (0.5 * (largest - largest.amax()) if len(largest) else largest).exp()
    return weights * gaussians.opacities().reshape(-1).sqrt()


def _turns(log_scales: Tensor) -> Tensor:
    """[K, 3] levels of the rotations for [K, 3] words of the scale: turns that change the covariance as much, in its
    own measure, as scales that are _TURN larger.

    A turn by t about axis k changes it by t (l_i - l_j) / sqrt(l_i l_j), l the eigenvalues.
    """
    gaps = (log_scales.roll(-1, 1) - log_scales.roll(-2, 1)).double()
    steps = _TURN / (2 * gaps.sinh().abs()).clamp(min=1e-3)
    axis = steps.argmax(1)  # about which turns matter least
    around = steps.gather(1, axis[:, None])[:, 0]
    across = ((steps.square().sum(1) - around.square()) / 2).sqrt()
    swing, twist = levels(across, around)
    return torch.stack([swing, twist, axis], 1)
