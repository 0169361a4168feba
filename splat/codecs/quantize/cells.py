"""Seeds of codebooks, on two levels where they are large.

A codebook of 65,536 words cannot be trained by searching all of it for every point: 200,000 points of 45
values are 1.2e12 operations an iteration. The points are first cut into about sqrt(k) cells by a small
k-means; each cell receives words by its share of the error and seeds them on its own. Then a point is
compared only with the words of the cells that lie nearest to its own: the words that matter are among them
but for rare exceptions, and an iteration costs 8 / sqrt(k) of the whole search where k is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from splat import _native

# A point is compared with the words of 8 cells, or of more where there are few: of about 1024 / C.
_NEAR = 8
_FEW_CELLS = 1024
# Points per codeword from which a flat codebook is seeded, and a coarse one trained.
_SAMPLE = 64
_COARSE_ITERATIONS = 6
_CELL_ITERATIONS = 4


@dataclass
class Cells:
    """A partition of the points, and of the codewords, into cells.

    Attributes:
        order: [N] int64, the points cell by cell.
        starts: [C + 1] int64, where each cell's points begin in `order`.
        word_starts: [C + 1] int64, where each cell's codewords begin.
        near: [C, M] int64, ascending: the cells nearest to each, itself among them.
    """

    order: Tensor
    starts: Tensor
    word_starts: Tensor
    near: Tensor

    def assign(self, ordered: Tensor, centroids: Tensor, penalties: Tensor | None) -> Tensor:
        """[N] int64 labels of the points given cell by cell, [N, D]: `assign` among the near cells' words."""
        labels = torch.empty(len(ordered), dtype=torch.int32)
        _native.nearest_in_cells(
            ordered,
            centroids,
            penalties,
            self.starts,
            self.word_starts,
            self.near,
            labels,
            torch.get_num_threads(),
        )
        return labels.long()


def nearest(points: Tensor, centroids: Tensor, penalties: Tensor | None = None) -> Tensor:
    """[N] int64 labels by the native search, without the checks of `clusters.assign`; float32, CPU."""
    labels = torch.empty(len(points), dtype=torch.int32)
    _native.nearest(points, centroids, penalties, labels, torch.get_num_threads())
    return labels.long()


def seed_codewords(
    points: Tensor, k: int, generator: torch.Generator, weights: Tensor | None, flat: int
) -> tuple[Tensor, Cells | None]:
    """[K, D] codewords to begin with, K <= k, and their cells where k > flat; all on the CPU."""
    k = min(k, len(points))
    if k <= flat:
        return _plusplus(points, k, generator, weights), None
    coarse = _coarse(points, max(2, round(math.sqrt(k))), generator, weights)
    labels = nearest(points, coarse)
    order = labels.sort(stable=True).indices
    counts = torch.bincount(labels, minlength=len(coarse))
    ordered = points[order]
    kept = None if weights is None else weights[order]
    errors = (ordered - coarse[labels[order]]).square().sum(1)
    errors = errors if kept is None else errors * kept
    totals = torch.stack([part.double().sum() for part in errors.split(counts.tolist())])
    shares = _shares(totals, _distinct(points, labels, len(coarse)), k, points.shape[1])

    k = int(shares.sum())
    starts, word_starts = _starts(counts), _starts(shares)
    words, drawn = torch.empty(k, points.shape[1]), torch.empty_like(shares)
    uniforms = torch.rand(k, generator=generator, dtype=torch.float64)
    threads = torch.get_num_threads()
    _native.train_cells(ordered, kept, starts, word_starts, uniforms, _CELL_ITERATIONS, words, drawn, threads)
    found = torch.cat([part[:n] for part, n in zip(words.split(shares.tolist()), drawn, strict=True)])
    distances = torch.cdist(coarse.double(), coarse.double())
    reach = max(_NEAR, _FEW_CELLS // len(coarse))
    near = distances.sort(dim=1, stable=True).indices[:, :reach].sort(dim=1).values
    return found, Cells(order, starts, _starts(drawn), near.contiguous())


def _starts(counts: Tensor) -> Tensor:
    """[C + 1] int64: sums of the counts [C] before each."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _plusplus(points: Tensor, k: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """[K, D] points drawn by k-means++, from a sample where there are many."""
    if len(points) > _SAMPLE * k:
        sample = torch.randperm(len(points), generator=generator)[: _SAMPLE * k].sort().values
        points, weights = points[sample], None if weights is None else weights[sample]
    uniforms = torch.rand(k, generator=generator, dtype=torch.float64)
    chosen = torch.empty(k, dtype=torch.int64)
    drawn = _native.seed(points, weights, uniforms, chosen, torch.get_num_threads())
    return points[chosen[: max(1, drawn)]] if drawn else points[:1]


def _coarse(points: Tensor, k: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """[K, D] centres of cells, by a k-means of a sample."""
    sample = torch.randperm(len(points), generator=generator)[: _SAMPLE * k].sort().values
    points, weights = points[sample], None if weights is None else weights[sample]
    return _refine(points, _plusplus(points, k, generator, weights), _COARSE_ITERATIONS, weights)


def _refine(points: Tensor, centroids: Tensor, iterations: int, weights: Tensor | None) -> Tensor:
    """Lloyd's iterations; words that lose all points stay where they are."""
    sums = torch.empty(centroids.shape, dtype=torch.float64)
    mass = torch.empty(len(centroids), dtype=torch.float64)
    for _ in range(iterations):
        labels = nearest(points, centroids).int()
        _native.accumulate(points, weights, labels, sums, mass, torch.get_num_threads())
        full = mass > 0
        centroids = torch.where(full[:, None], (sums / mass.clamp(min=1e-300)[:, None]).float(), centroids)
    return centroids


def _distinct(points: Tensor, labels: Tensor, cells: int) -> Tensor:
    """[C] int64: how many different points each cell has (told apart by one projection)."""
    direction = torch.linspace(1, 2, points.shape[1], dtype=torch.float64).sqrt()
    seen = torch.unique(torch.stack([labels.double(), points.double() @ direction], 1), dim=0)
    return torch.bincount(seen[:, 0].long(), minlength=cells)


def _shares(totals: Tensor, sizes: Tensor, k: int, dims: int) -> Tensor:
    """[C] int64: codewords for each cell, at most k in all.

    Args:
        totals: [C] each cell's error.
        sizes: [C] its number of distinct points.

    With an error of e k^(-2/D) from k words in a cell that has e without, the least total has k in
    proportion to e^(D / (D + 2)) (Zador 1982). No cell gets more words than points.
    """
    wanted = totals.pow(dims / (dims + 2)) + 1e-300
    shares = torch.zeros(len(sizes), dtype=torch.int64)
    # A word for every cell with points, then the rest by want, again where cells were full.
    shares[sizes > 0] = 1
    while (left := k - int(shares.sum())) > 0:
        room = sizes - shares
        open_cells = room > 0
        if not bool(open_cells.any()):
            break
        want = torch.where(open_cells, wanted, 0.0)
        ideal = want / want.sum() * left
        given = torch.minimum(ideal.floor().long(), room)
        if int(given.sum()) == 0:
            # Fewer words than cells are left: to those that want them most.
            first = torch.where(open_cells, ideal, -1.0).sort(descending=True, stable=True).indices[:left]
            given[first] = 1
            given = torch.minimum(given, room)
        shares += given
    return shares
