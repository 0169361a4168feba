"""Codebooks that are trained: assignment at the price of the bits, centroids that follow their members."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from splat.codecs.quantize import accumulate, assign, kmeans
from splat.codecs.vq.scene import Book

_ITERATIONS = 5


class Codebook:
    """Entropy-constrained vector quantization (Chou, Lookabaugh & Gray 1989) with weights a point.

    Attributes:
        optional: whether the label 0 stands for zeros, which cost no codeword.
        centroids: [K, D] float32; row 0 is zero where `optional`.
        bits: [K] float32, of each label: -log2 of its share, and its share of the codeword's own bytes.
        book: the centroids as they are stored; without row 0 where `optional`.
        own: bits that a codeword itself takes in the file; None: a byte a value.
    """

    def __init__(self, optional: bool) -> None:
        self.optional = optional
        self.centroids = torch.zeros(0, 0)
        self.bits = torch.zeros(0)
        self.book = Book.of(self.centroids)
        self.own: float | None = None

    def begin(self, points: Tensor, most: int, weight: Tensor, lam: float, seed: int) -> Tensor:
        """Centroids by k-means, then under the rate; [N] int64 labels."""
        centroids, labels = kmeans(points, most, seed=seed, iterations=_ITERATIONS, weights=weight)
        if self.optional:
            centroids = torch.cat([torch.zeros_like(centroids[:1]), centroids])
            labels = labels + 1
        return self.begin_with(centroids, points, weight, lam, labels)

    def begin_with(
        self, centroids: Tensor, points: Tensor, weight: Tensor, lam: float, labels: Tensor | None = None
    ) -> Tensor:
        """From [K, D] centroids, by default with the nearest as labels; [N] int64 labels under the rate."""
        self.centroids = centroids
        found = assign(points, centroids) if labels is None else labels
        self._count(found)
        for _ in range(2):
            found = self.update(points, self.assign(points, weight, lam), weight)
        return found

    def assign(self, points: Tensor, weight: Tensor, lam: float) -> Tensor:
        """[N] int64: the label of least weight |x - c|^2 + lam bits."""
        return cheapest(points, self.centroids, self.bits, lam / weight)

    def update(self, points: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Move the centroids to their members, count the bits and drop unused words; the new labels."""
        self.centroids, labels = used(self.centroids, labels, keep=int(self.optional))
        self._count(labels)
        self.move(points, labels, weight)
        return labels

    def move(self, points: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Move the centroids to their members, at the assignments as they are."""
        self.centroids = followed(self.centroids, points, labels, weight)
        self.settle()

    def settle(self) -> None:
        """Round the centroids as the file does."""
        if self.optional:
            self.centroids[0] = 0
        self.book = Book.of(self.centroids[1:] if self.optional else self.centroids)

    def _count(self, labels: Tensor) -> None:
        counts = torch.bincount(labels, minlength=len(self.centroids)).double()
        bits = -torch.log2((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
        # What a codeword itself takes, its members share.
        own = (8.0 * self.centroids.shape[1] if self.own is None else self.own) / (counts + 0.5)
        if self.optional:
            own[0] = 0
        self.bits = (bits + own).float()

    def state_dict(self) -> dict[str, Any]:
        return {"centroids": self.centroids, "bits": self.bits, "own": self.own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.centroids, self.bits, self.own = state["centroids"], state["bits"], state["own"]
        self.settle()


def used(centroids: Tensor, labels: Tensor, keep: int = 0) -> tuple[Tensor, Tensor]:
    """The centroids [K, ...] that have members, and the first `keep` in any case; the labels as they number these."""
    stays = torch.bincount(labels.flatten(), minlength=len(centroids)) > 0
    stays[:keep] = True
    return centroids[stays], (stays.cumsum(0) - 1)[labels]


def followed(centroids: Tensor, points: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """[K, D] the means of the members, [N, D] points of these labels and weights; centroids without members stay."""
    sums, mass = accumulate(points.contiguous(), labels, len(centroids), weight.contiguous())
    means = (sums / mass.clamp(min=1e-300)[:, None]).float()
    return torch.where((mass > 0)[:, None], means, centroids)


def cheapest(points: Tensor, centroids: Tensor, bits: Tensor, price: Tensor) -> Tensor:
    """[N] int64 labels of least |x - c|^2 + price bits.

    One search for the nearest codeword: with a further component -price / 2 of a point and bits of a codeword
    the squared distance grows by price bits + bits^2, and by what is the same for all codewords.

    Args:
        points: [N, D].
        centroids: [K, D].
        bits: [K].
        price: [N] squared distance that a bit is worth.
    """
    spread = float(points.double().var(0).sum()) if len(points) > 1 else 1.0
    # Scaled so that the further components are of the size of the others, which float32 needs. A bit that
    # is worth several times the variance decides alone.
    unit = max(float(bits.max()), 1.0) / math.sqrt(max(spread, 1e-12))
    price = price.clamp(max=4 * max(spread, 1e-12))
    longer = torch.cat([points, (-0.5 * unit * price)[:, None]], 1)
    words = torch.cat([centroids, (bits / unit)[:, None]], 1)
    return assign(longer, words, -(bits / unit).square())
