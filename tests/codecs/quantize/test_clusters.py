"""Codebooks: known answers, optimality, determinism."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from splat.codecs.quantize import (
    assign,
    ecvq,
    kmeans,
    product_decode,
    product_kmeans,
    residual_decode,
    residual_kmeans,
)
from splat.codecs.quantize.clusters import accumulate


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(points: Tensor, codewords: Tensor, labels: Tensor) -> float:
    return float((points - codewords[labels]).double().square().sum(1).mean())


@pytest.mark.parametrize("dims", [1, 3, 45])
@pytest.mark.parametrize("size", [1, 5, 33, 300])
def test_assign_finds_the_nearest(dims: int, size: int) -> None:
    points, codewords = noise(700, dims), 3 + noise(size, dims, seed=1)
    found = (points.double() - codewords.double()[assign(points, codewords)]).norm(dim=1)
    least = torch.cdist(points.double(), codewords.double()).amin(1)
    # Scores are sums of dims + 1 products of magnitude |x - m| |c - m|, each rounded once.
    middle = codewords.mean(0)
    size_of_terms = (points - middle).norm(dim=1) * (codewords - middle).norm(dim=1).max() + 1
    bound = 4 * (dims + 2) * torch.finfo(torch.float32).eps * size_of_terms.double()
    assert bool((found.square() - least.square() <= bound).all())


def test_assign_takes_the_first_of_equals_and_counts_penalties() -> None:
    codewords = torch.tensor([[1.0], [0.0], [1.0], [3.0]])
    points = torch.tensor([[1.1], [0.1], [2.6]])
    assert assign(points, codewords).tolist() == [0, 1, 3]
    assert assign(points, codewords, torch.tensor([1.0, 0, 0, 5])).tolist() == [2, 1, 2]
    with pytest.raises(ValueError, match="expected \\[N, D\\]"):
        assign(points, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="no codeword"):
        assign(points, torch.zeros(0, 1))


def test_accumulate_sums_by_label() -> None:
    points, weights = noise(500, 7), noise(500, seed=1).abs()
    labels = torch.randint(0, 11, (500,), generator=torch.Generator().manual_seed(2))
    sums, mass = accumulate(points, labels, 12, weights)
    expected = torch.zeros(12, 7, dtype=torch.float64).index_add_(
        0, labels, points.double() * weights.double()[:, None]
    )
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)
    assert float(mass[11]) == 0


def test_kmeans_finds_separate_groups() -> None:
    centers = 10 * noise(20, 5)
    points = (centers[:, None] + 0.01 * noise(20, 30, 5, seed=1)).reshape(-1, 5)
    codewords, labels = kmeans(points, 20)
    assert len(codewords) == 20
    assert labels.reshape(20, 30).eq(labels[::30, None]).all()
    torch.testing.assert_close(codewords[labels[::30]], points.reshape(20, 30, 5).mean(1))


@pytest.mark.parametrize("k", [40, 1500])
def test_kmeans_is_a_fixed_point_with_labels_that_are_near(k: int) -> None:
    points = noise(4000, 6)
    codewords, labels = kmeans(points, k, iterations=200)
    assert sorted(set(labels.tolist())) == list(range(k))
    sums, mass = accumulate(points, labels, k)
    torch.testing.assert_close(codewords, (sums / mass[:, None]).float())
    exact = error(points, codewords, assign(points, codewords))
    assert exact <= error(points, codewords, labels) <= 1.01 * exact


def test_fewer_points_than_codewords() -> None:
    points = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
    codewords, labels = kmeans(points, 10)
    assert codewords[labels].equal(points)
    assert len(codewords) == 2
    points = noise(1200, 2).repeat(2, 1)
    codewords, labels = kmeans(points, 1300)
    assert error(points, codewords, labels) < 1e-12


def test_weights_pull_codewords() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0]])
    codewords, labels = kmeans(points, 2, weights=torch.tensor([3.0, 1.0, 1.0]))
    assert codewords[labels].flatten().tolist() == [0.25, 0.25, 10.0]
    codewords, labels = kmeans(points, 3, weights=torch.tensor([1.0, 1.0, 0.0]))
    assert sorted(codewords.flatten().tolist()) == [0.0, 1.0]


def test_ecvq_without_a_rate_is_kmeans_and_with_one_trades_error_for_bits() -> None:
    points = noise(3000, 4)
    codewords, labels = kmeans(points, 64, seed=3)
    plain, plain_labels, bits = ecvq(points, 64, 0.0, seed=3)
    assert plain.equal(codewords)
    assert plain_labels.equal(labels)
    outcomes = [(error(points, plain, plain_labels), float(bits[plain_labels].mean()))]
    for lam in (0.05, 0.2, 1.0):
        codewords, labels, bits = ecvq(points, 64, lam, seed=3)
        shares = torch.bincount(labels).double() / len(points)
        torch.testing.assert_close(bits.double(), -shares.log2(), rtol=1e-6, atol=1e-6)
        outcomes.append((error(points, codewords, labels), float(bits[labels].mean())))
    assert [e for e, _ in outcomes] == sorted(e for e, _ in outcomes)
    assert [b for _, b in outcomes] == sorted((b for _, b in outcomes), reverse=True)


@pytest.mark.parametrize("k", [100, 1100])
def test_the_same_bits_whatever_the_threads(k: int) -> None:
    points = noise(3000, 9)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(kmeans(points, k, seed=1))
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(found[0][0]) and b.equal(found[0][1]) for a, b in found)
    assert not kmeans(points, k, seed=2)[0].equal(found[0][0])


def test_product_and_residual() -> None:
    points = noise(1000, 6)
    codebooks, labels = product_kmeans(points, [2, 4], 32)
    assert labels.shape == (1000, 2)
    alone = kmeans(points[:, 2:], 32, seed=1)
    assert codebooks[1].equal(alone[0])
    assert product_decode(codebooks, labels)[:, 2:].equal(alone[0][alone[1]])

    codebooks, labels = residual_kmeans(points, [16, 16, 16])
    errors = [
        float((points - residual_decode(codebooks[:s], labels[:, :s])).square().mean()) for s in (1, 2, 3)
    ]
    assert errors == sorted(errors, reverse=True)
    first = kmeans(points, 16)
    assert codebooks[0].equal(first[0])
    assert labels[:, 0].equal(first[1])
    with pytest.raises(ValueError, match="do not add up"):
        product_kmeans(points, [2, 3], 4)
