"""A scene as indices into codebooks, and what they stand for: the one place that decodes them.

Training draws what `Quantized.gaussians` gives, so that a file loses nothing that training has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from splat.codecs.vq.basis import PARTS, Basis, kept
from splat.codecs.vq.cells import LARGEST_DEPTH
from splat.codecs.vq.turns import decode_rotations
from splat.core import Gaussians

# Attribute -> values of a codeword. The view-dependent colours of basis.py follow; they have a codeword 0 besides,
# which is nothing at all and is not stored.
WIDTHS = {"scale": 3, "opacity": 1, "color": 3}
LARGEST_BOOK = 1 << 16


def widths(degree: int) -> dict[str, int]:
    """Values of a codeword, for each attribute of a scene of this degree of harmonics that has a codebook."""
    components = range(kept(degree))
    parts = {part: 3 * len(components[first:end]) for part, (first, end) in PARTS.items()}
    return WIDTHS | {part: width for part, width in parts.items() if width}


@dataclass
class Book:
    """A codebook as it is stored: 256 levels a column.

    Attributes:
        words: [K, D] uint8.
        low, step: [D] float32; the value is low + step word.
    """

    words: Tensor
    low: Tensor
    step: Tensor

    @staticmethod
    def of(values: Tensor) -> Book:
        """The book nearest to [K, D] values."""
        values = values.detach().float()
        low, high = (
            (values.amin(0), values.amax(0)) if len(values) else (values.new_zeros(values.shape[1]),) * 2
        )
        step = (high - low) / 255
        words = ((values - low) / step.clamp(min=1e-30)).round().clamp(0, 255).to(torch.uint8)
        return Book(words, low, step)

    def values(self) -> Tensor:
        """[K, D] float32."""
        return self.low + self.step * self.words.float()


@dataclass
class Quantized:
    """A scene of N Gaussians in indices.

    Attributes:
        origin: [3] float64 lowest corner of the cube that holds the centres, world units.
        size: its edge.
        depths: [K of scale] int64: centres of Gaussians of that codeword lie in cells of size / 2^depth.
        cells: [N, 3] int64 at the depth of each.
        turns: [K of scale, 3] int64: levels of the rotations of Gaussians of that codeword, see turns.py.
        labels: attribute, or "rotation" -> [N] int64.
        books: attribute -> its codebook.
        basis: of the view-dependent colours.
        antialiased, extras: as in Gaussians.
    """

    origin: Tensor
    size: float
    depths: Tensor
    turns: Tensor
    cells: Tensor
    labels: dict[str, Tensor]
    books: dict[str, Book]
    basis: Basis
    antialiased: bool = False
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def degree(self) -> int:
        """Degree of the harmonics."""
        return math.isqrt(len(self.basis.constant) + 1) - 1

    def gaussians(self) -> Gaussians:
        """The scene that the indices stand for."""
        depth, levels = self.depths[self.labels["scale"]], self.turns[self.labels["scale"]]
        tables = {name: words(name, book, self.basis) for name, book in self.books.items()}
        means = centres(self.cells, depth, self.origin, self.size)
        quats = decode_rotations(self.labels["rotation"], levels)
        scene = assemble(means, quats, tables, self.labels, self.antialiased)
        return replace(scene, extras=self.extras)


def words(name: str, book: Book, basis: Basis) -> Tensor:
    """[K, D] what the labels of the attribute stand for; of colours all harmonics, and 0 for label 0 of the
    view-dependent ones."""
    values = book.values()
    if name == "color":
        return torch.cat([values, values.new_zeros(len(values), 3 * len(basis.constant))], 1)
    if name not in PARTS:
        return values
    return basis.harmonics(torch.cat([values.new_zeros(1, values.shape[1]), values]), name).flatten(1)


def assemble(
    means: Tensor, quats: Tensor, tables: dict[str, Tensor], labels: Mapping[str, Tensor], antialiased: bool
) -> Gaussians:
    """The scene of [N, 3] centres, [N, 4] rotations and attribute -> [N] labels of its table of `words`."""
    colors = [name for name in ("color", *PARTS) if name in tables]
    sizes = torch.tensor([0] + [len(tables[name]) for name in colors[:-1]]).cumsum(0)
    places = torch.stack([labels[name] + int(first) for name, first in zip(colors, sizes, strict=True)], 1)
    # The sum of the words of a row, without the rows of each of them.
    sh = embedding_bag(places, torch.cat([tables[name] for name in colors]), mode="sum")
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=tables["scale"].index_select(0, labels["scale"]),
        logit_opacities=tables["opacity"][:, 0].index_select(0, labels["opacity"]),
        sh=sh.unflatten(1, (-1, 3)),
        antialiased=antialiased,
    )


def cube(means: Tensor) -> tuple[Tensor, float]:
    """[3] float64 origin and edge of a cube around the centres."""
    if len(means) == 0:
        return torch.zeros(3, dtype=torch.float64, device=means.device), 1.0
    low, high = means.detach().double().amin(0), means.detach().double().amax(0)
    return low, max(float((high - low).max()) * (1 + 1e-6), 1e-9)


def cells_of(means: Tensor, depth: Tensor, origin: Tensor, size: float) -> Tensor:
    """[N, 3] int64 cells of [N, 3] centres at [N] depths; centres outside the cube take the nearest."""
    count = torch.exp2(depth.double())[:, None]
    cells = ((means.detach().double() - origin) / size * count).floor()
    return torch.minimum(cells.clamp(min=0), count - 1).long()


def centres(cells: Tensor, depth: Tensor, origin: Tensor, size: float) -> Tensor:
    """[N, 3] float32 middles of the cells."""
    edge = size / torch.exp2(depth.double())[:, None]
    return (origin + (cells.double() + 0.5) * edge).float()


def depths_of(steps: Tensor, size: float) -> Tensor:
    """int64 of the shape of `steps`: the depth whose cells are nearest to those edges."""
    wanted = torch.log2(size / steps.double().clamp(min=1e-300)).round()
    return wanted.clamp(1, LARGEST_DEPTH).long()
