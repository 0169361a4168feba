"""Rotations as codewords, by what they do to the covariance.

The covariance of a sphere does not see its rotation, that of a disc sees where its normal points; rotations
that turn an axis over, or by half a turn, do nothing at all. So codewords are compared by the squared
difference of the covariances (Frobenius), over the largest eigenvalue.
"""

from __future__ import annotations

import math

from torch import Tensor

from splat.codecs.quantize import assign
from splat.codecs.vq.grid import rotations
from splat.core.rotations import quat_to_matrix
from splat.strategies.vq.codebook import Codebook, cheapest

_ROW, _COLUMN = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
_WEIGHT = (1.0, math.sqrt(2), math.sqrt(2), 1.0, math.sqrt(2), 1.0)


class RotationBook(Codebook):
    """An even grid of rotations, whose probabilities alone are learned; `centroids` are [K, 4]."""

    def __init__(self, size: int) -> None:
        super().__init__(optional=False)
        self.size = size
        self.centroids = rotations(size)

    def begin(self, points: Tensor, most: int, weight: Tensor, lam: float, seed: int) -> Tensor:
        self.centroids = rotations(self.size).to(points)
        return self.begin_with(
            self.centroids, points, weight, lam, assign(points, word_features(self.centroids))
        )

    def assign(self, points: Tensor, weight: Tensor, lam: float) -> Tensor:
        return cheapest(points, word_features(self.centroids), self.bits, lam / weight)

    def update(self, points: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        self._count(labels)
        return labels

    def move(self, points: Tensor, labels: Tensor, weight: Tensor) -> None:
        """The grid stays."""

    def _own_bits(self) -> int:
        return 0


def features(quats: Tensor, log_scales: Tensor) -> Tensor:
    """[N, 18] eigenvalue j times the covariance, over the largest squared; the product with `word_features` of a
    rotation is the product of the two covariances."""
    eigenvalues = (2 * (log_scales - log_scales.amax(1, keepdim=True))).exp()
    axes = quat_to_matrix(quats)
    covariance = _folded((axes * eigenvalues[:, None]) @ axes.mT)
    return (eigenvalues[:, :, None] * covariance[:, None]).flatten(1)


def word_features(quats: Tensor) -> Tensor:
    """[K, 18] the outer products of the three axes of each rotation."""
    axes = quat_to_matrix(quats).mT
    return _folded(axes[..., :, None] * axes[..., None, :]).flatten(1)


def _folded(matrices: Tensor) -> Tensor:
    """[..., 6] of symmetric [..., 3, 3], so that products are those of the matrices."""
    return matrices[..., _ROW, _COLUMN] * matrices.new_tensor(_WEIGHT)
