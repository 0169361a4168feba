"""Scalar codebooks that are trained: one for all channels of an image, each channel with its own counts."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.codecs.quantize import scalar_codebook
from splat.codecs.sog_quantize import written
from splat.strategies.vq.codebook import cheapest, followed, used

_OWN = 64.0  # bits of a value in meta.json, about


class Scalars:
    """Entropy-constrained scalar quantization (Chou, Lookabaugh & Gray 1989) with weights a row.

    Attributes:
        centroids: [K] float32.
        bits: [C, K] float32, of each label in each channel: -log2 of its share there, and its share of the value's
            own bytes.
    """

    def __init__(self) -> None:
        self.centroids = torch.zeros(0)
        self.bits = torch.zeros(0, 0)

    def begin(self, points: Tensor, most: int, weight: Tensor, lam: float) -> Tensor:
        """Centroids of least error, then under the rate; [N, C] int64 labels of [N, C] points."""
        wide = weight[:, None].expand_as(points)
        self.centroids = written(scalar_codebook(points, min(most, points.numel()), weights=wide).unique())
        self.bits = torch.zeros(points.shape[1], len(self.centroids))
        found = self.assign(points, weight, 0.0)
        self._count(found)
        for _ in range(2):
            found = self.update(points, self.assign(points, weight, lam), weight)
        return found

    def assign(self, points: Tensor, weight: Tensor, lam: float) -> Tensor:
        """[N, C] int64: the label of least weight (x - c)^2 + lam bits."""
        words, price = self.centroids[:, None], lam / weight
        columns = [
            cheapest(points[:, i : i + 1], words, bits, price) for i, bits in enumerate(self.bits.unbind(0))
        ]
        return torch.stack(columns, 1)

    def update(self, points: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Move the centroids to their members, count the bits and drop unused values; the new labels."""
        self.centroids, labels = used(self.centroids, labels)
        self._count(labels)
        self.move(points, labels, weight)
        return labels

    def move(self, points: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Move the centroids to their members, at the assignments as they are."""
        wide = weight[:, None].expand_as(points).reshape(-1)
        means = followed(self.centroids[:, None], points.reshape(-1, 1), labels.flatten(), wide)
        self.centroids = written(means[:, 0])

    def cost(self, labels: Tensor) -> Tensor:
        """[N] bits of the labels [N, C]."""
        return torch.stack([bits[labels[:, i]] for i, bits in enumerate(self.bits.unbind(0))]).sum(0)

    def _count(self, labels: Tensor) -> None:
        size = len(self.centroids)
        counts = torch.stack([torch.bincount(column, minlength=size) for column in labels.unbind(1)]).double()
        bits = -((counts + 0.5) / (counts.sum(1, keepdim=True) + 0.5 * size)).log2()
        self.bits = (bits + _OWN / (counts.sum(0) + 0.5)).float()

    def state_dict(self) -> dict[str, Tensor]:
        return {"centroids": self.centroids, "bits": self.bits}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.centroids, self.bits = state["centroids"], state["bits"]
