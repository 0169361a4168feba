"""The parts of the vq strategy: assignment at a price, rotations by their covariance, sensitivity."""

from __future__ import annotations

import pytest
import torch

from splat.codecs.vq.grid import rotations
from splat.core import Gaussians
from splat.core.rotations import quat_to_matrix
from splat.strategies.vq import rotation
from splat.strategies.vq.codebook import Codebook, cheapest
from splat.strategies.vq.sensitivity import rotation_scale


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_cheapest_word_is_that_of_the_definition() -> None:
    """Against float64; where another word was chosen its cost is the same to float32's rounding."""
    points, words = random(500, 3), random(40, 3, seed=1)
    bits, price = random(40, seed=2).abs() * 5 + 1, random(500, seed=3).abs() * 0.1
    labels = cheapest(points, words, bits, price)
    cost = torch.cdist(points.double(), words.double()).square() + price.double()[:, None] * bits.double()
    chosen = cost.gather(1, labels[:, None])[:, 0]
    assert float((chosen - cost.amin(1)).max()) < 1e-5 * float(cost.max())
    assert (labels == cost.argmin(1)).float().mean() > 0.99
    free = cheapest(points, words, bits, torch.zeros(500))
    assert not labels.equal(free)
    assert float(bits[labels].mean()) < float(bits[free].mean())


def test_a_higher_price_leaves_fewer_words_and_zeros_are_free() -> None:
    points, weight = 0.1 * random(2000, 9), torch.ones(2000)
    entropies = []
    for lam in (1e-5, 5e-2):
        book = Codebook(optional=True)
        labels = book.begin(points, 64, weight, lam, seed=0)
        assert not bool(book.centroids[0].any())
        assert len(book.book.words) == len(book.centroids) - 1
        share = torch.bincount(labels).double() / len(labels)
        entropies.append(float(-(share[share > 0] * share[share > 0].log2()).sum()))
    assert entropies[1] < 0.5 * entropies[0]


def test_products_of_features_are_those_of_covariances() -> None:
    quats, scales, words = random(20, 4), random(20, 3, seed=1), rotations(400)
    eigenvalues = (2 * (scales - scales.amax(1, keepdim=True))).exp()
    own = quat_to_matrix(quats)
    covariance = (own * eigenvalues[:, None]) @ own.mT
    axes = quat_to_matrix(words)
    other = (axes[None] * eigenvalues[:, None, None]) @ axes.mT[None]
    expected = (covariance[:, None] * other).sum((2, 3))
    found = rotation.features(quats, scales) @ rotation.word_features(words).mT
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_every_rotation_has_a_neighbour_on_the_grid() -> None:
    """4,096 of them, each for a share of the 2 pi^2 / 8 that rotations up to half turns take: in a cube of that
    size the farthest point is 0.87 edges away; a factor of 1.5 is for the border and the spirals' unevenness."""
    words = rotations(1 << 14)
    assert abs(len(words) - (1 << 12)) < 100
    torch.testing.assert_close(words.norm(dim=1), torch.ones(len(words)))
    assert bool((words[:, :1] >= words.abs().amax(1, keepdim=True)).all())
    quats = torch.nn.functional.normalize(random(2000, 4), dim=1)
    inside = quats[quats[:, 0] >= 0.05 + quats[:, 1:].abs().amax(1)]
    nearest = torch.cdist(inside, words).amin(1)
    edge = (2 * torch.pi**2 / 8 / len(words)) ** (1 / 3)
    assert float(nearest.max()) < 1.5 * 0.87 * edge


def test_a_small_turn_changes_the_covariance_as_foretold() -> None:
    """To first order in an angle of 1e-3; the mean over the three axes."""
    scales = torch.tensor([[0.0, -0.4, -1.5]], dtype=torch.float64)
    quat = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    g = Gaussians(quat[:, :3] * 0, quat, scales, quat[:, 0], quat[:, None, :3])
    eigenvalues = (2 * scales).exp().diag_embed()[0]
    total = 0.0
    for axis in range(3):
        turned = quat.clone()
        turned[0, 1 + axis] = 0.5e-3
        matrix = quat_to_matrix(turned)[0]
        total += float((matrix @ eigenvalues @ matrix.T - eigenvalues).square().sum()) / 3
    assert total == pytest.approx(1e-6 * float(rotation_scale(g)), rel=1e-3)
