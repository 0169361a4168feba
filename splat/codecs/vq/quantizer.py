"""Scenes that were not trained for the container: codebooks by k-means, or those that training gave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from splat.codecs.quantize import assign, kmeans
from splat.codecs.vq.grid import rotations
from splat.codecs.vq.scene import BANDS, Book, Quantized, attributes, cells_of, cube, depths_of, words
from splat.core import Gaussians, UsageError

# Edge of a centre's cell as a share of the mean scale (geometric) of its codeword.
_CELL = 0.25
_ITERATIONS = 10
_GRID = 1 << 16  # 16,384 rotations


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


def values_of(gaussians: Gaussians, name: str) -> Tensor:
    """[N, D] the values of an attribute."""
    if name == "scale":
        return gaussians.log_scales
    if name == "opacity":
        return gaussians.logit_opacities[:, None]
    band = ("color", *BANDS).index(name)
    return gaussians.sh[:, band**2 : (band + 1) ** 2].flatten(1)


def rotation_features(quats: Tensor) -> Tensor:
    """[N, 10] whose squared distances tell rotations apart: a quaternion is one of either sign."""
    row, column = torch.triu_indices(4, 4, device=quats.device)
    weight = torch.where(row == column, 1.0, math.sqrt(2))
    return quats[:, row] * quats[:, column] * weight


def quantize(gaussians: Gaussians, options: VqOptions, learned: dict[str, Any] | None = None) -> Quantized:
    """The scene in indices.

    Args:
        learned: `origin`, `size`, `depths`, `books` and `grid` of a Quantized, as the vq strategy exports them. A
            scene that it baked is met exactly; others take the nearest words.
    """
    if learned is None or set(learned["books"]) != set(attributes(gaussians.sh_degree)):
        learned = _learn(gaussians, options)
    books: dict[str, Book] = learned["books"]
    labels = {name: _nearest(values_of(gaussians, name), words(name, book)) for name, book in books.items()}
    grid: int = learned["grid"]
    labels["rotation"] = _nearest_rotation(gaussians.quats, rotations(grid))
    origin, size, depths = learned["origin"], learned["size"], learned["depths"]
    place = gaussians.means.double() - origin
    if bool(((place < 0) | (place > size)).any()):  # moved since
        origin, grown = cube(gaussians.means)
        depths, size = depths_of(size / torch.exp2(depths.double()), grown), grown
    cells = cells_of(gaussians.means, depths[labels["scale"]], origin, size)
    return Quantized(origin, size, depths, cells, labels, books, grid, gaussians.antialiased)


def _nearest(values: Tensor, choices: Tensor) -> Tensor:
    """[N] int64 labels."""
    return assign(values, choices) if len(values) else torch.zeros(0, dtype=torch.int64)


def _nearest_rotation(quats: Tensor, choices: Tensor) -> Tensor:
    """[N] int64: of the rotations that make the same covariance, the one that is on the grid."""
    unit = functional.normalize(quats, dim=1)
    w, x, y, z = unit.unbind(1)
    forms = torch.stack(
        [
            unit,
            torch.stack([-x, w, z, -y], 1),
            torch.stack([-y, -z, w, x], 1),
            torch.stack([-z, y, -x, w], 1),
        ],
        1,
    )
    # Turned over about an axis so that w is the largest; near the border of those a neighbour may be nearer.
    best = forms[torch.arange(len(unit)), unit.abs().argmax(1)]
    return _nearest(rotation_features(best), rotation_features(choices))


def _learn(gaussians: Gaussians, options: VqOptions) -> dict[str, Any]:
    books = {}
    for name in attributes(gaussians.sh_degree):
        values = values_of(gaussians, name)
        most = min(options.words, 256) if name == "opacity" else options.words
        centroids = values[:0]
        if len(values):
            centroids, _ = kmeans(values, most, seed=options.seed, iterations=_ITERATIONS)
        books[name] = Book.of(centroids)
    origin, size = cube(gaussians.means)
    return {
        "origin": origin,
        "size": size,
        "depths": depths_of(_CELL * books["scale"].values().mean(1).exp(), size),
        "books": books,
        "grid": _GRID,
    }
