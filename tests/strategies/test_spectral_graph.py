"""Graphs whose spectra are known, and what must not change a score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import DataError
from splat.strategies.spectral.graph import high_pass, knn_graph, responses


def ring(count: int, radius: float = 2.0) -> np.ndarray:
    angles = 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)


@pytest.mark.parametrize("frequency", [1, 3, 8])
def test_the_waves_of_a_ring_are_its_eigenvectors(frequency: int):
    """On a ring of n, joined with both neighbours, cos(k phi) has the eigenvalue 1 - cos(2 pi k / n)."""
    count = 24
    graph = knn_graph(ring(count), 2)
    assert np.all(np.diff(graph.squared.indptr) == 2)
    wave = np.cos(2 * math.pi * frequency * np.arange(count) / count)
    expected = (1 - math.cos(2 * math.pi * frequency / count)) ** 2 * wave**2
    np.testing.assert_allclose(responses(graph, wave[:, None]), expected, atol=1e-12)


def test_a_grid_is_smooth_inside_and_not_at_its_border():
    side = 9
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float), indexing="ij")
    points = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3)
    # The four at distance 1; at the border further ones make up the number, and join back one layer inside.
    scores = responses(knn_graph(points, 4), points).reshape(side, side)
    np.testing.assert_allclose(scores[3:-3, 3:-3], 0, atol=1e-20)
    assert scores[0].min() > 0.01


@pytest.mark.parametrize(("across", "down"), [(1, 0), (2, 3), (4, 4)])
def test_the_waves_of_a_grid_are_its_eigenvectors(across: int, down: int):
    """Where all four neighbours are at distance 1, cos(p x + q y) has the eigenvalue 1 - (cos p + cos q) / 2."""
    side = 12
    x, y = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float), indexing="ij")
    graph = knn_graph(np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3), 4)
    p, q = math.pi * across / 5, math.pi * down / 5
    wave = np.cos(p * x + q * y)
    answers = high_pass(graph, wave.reshape(-1, 1)).reshape(side, side)
    inside = (slice(3, -3), slice(3, -3))
    expected = (1 - (math.cos(p) + math.cos(q)) / 2) * wave
    np.testing.assert_allclose(answers[inside], expected[inside], atol=1e-12)


def test_what_sums_to_nothing_on_a_clique_has_its_one_other_eigenvalue():
    """A clique of n at equal distances: I - A is 0 on constants and 1 + 1 / (n - 1) on all that sums to 0."""
    tetrahedron = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    graph = knn_graph(np.concatenate([tetrahedron, tetrahedron + 50]), 3)
    signal = np.random.default_rng(0).normal(size=(2, 4, 5))
    level = signal.mean(1, keepdims=True)
    expected = (1 + 1 / 3) * (signal - level)
    np.testing.assert_allclose(high_pass(graph, signal.reshape(8, 5)), expected.reshape(8, 5), atol=1e-12)


def test_two_cliques_are_constant_each_under_the_filter():
    r = np.random.default_rng(0)
    first, second = r.normal(size=(6, 3)), r.normal(size=(6, 3)) + 100
    graph = knn_graph(np.concatenate([first, second]), 5)
    assert np.all(np.diff(graph.squared.indptr) == 5)
    level = np.repeat([[3.0], [-7.0]], 6, axis=0)
    np.testing.assert_allclose(responses(graph, level), 0, atol=1e-20)
    np.testing.assert_allclose(responses(graph, level, "released"), 0, atol=1e-12)


def test_the_released_form_is_the_unnormalised_laplacian():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    graph = knn_graph(points, 1)  # edges 0-1 of length 1 and 1-2 of length 2
    # Squared lengths 1 and 4, each twice in the symmetric matrix: their variance is 2.25.
    near, far = math.exp(-1 / 4.5), math.exp(-16 / 4.5)
    expected = [near * 1, abs(near * 1 - far * 2), far * 2]
    np.testing.assert_allclose(responses(graph, points, "released"), expected, rtol=1e-12)


def test_centres_at_one_place_are_one_vertex():
    points = np.concatenate([ring(10), ring(10)[:4], ring(10)[:1]])
    graph = knn_graph(points, 2)
    assert len(graph.points) == 10
    assert graph.isolated == 0
    scores = responses(graph, points)
    np.testing.assert_allclose(scores, responses(knn_graph(ring(10), 2), ring(10))[graph.place], rtol=1e-9)


def test_a_centre_far_from_all_others_is_the_most_unlike():
    points = np.concatenate([np.random.default_rng(0).normal(size=(200, 3)), [[1e6, 0, 0]]])
    scores = responses(knn_graph(points, 8), points)
    assert scores.argmax() == 200
    assert scores[200] == pytest.approx(1e12, rel=0.01)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_scenes_too_small_for_neighbours(count: int):
    graph = knn_graph(np.arange(3.0 * count).reshape(count, 3), 16)
    assert responses(graph, np.ones((count, 2))).shape == (count,)
    assert graph.isolated == (1.0 if count == 1 else 0.0)


def test_all_at_one_place():
    graph = knn_graph(np.ones((5, 3)), 4)
    assert graph.isolated == 1
    np.testing.assert_array_equal(responses(graph, np.ones((5, 3))), 0)
    np.testing.assert_array_equal(responses(graph, np.ones((5, 3)), "released"), 0)


def test_centres_must_be_finite():
    with pytest.raises(DataError, match="NaN or infinity"):
        knn_graph(np.array([[0.0, 0, np.nan]]))


@pytest.mark.parametrize("form", ["paper", "released"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), angle=st.floats(0, 6.3), shift=st.floats(-50, 50))
def test_rotation_translation_and_order_change_nothing(form, seed: int, angle: float, shift: float):
    r = np.random.default_rng(seed)
    points = r.normal(size=(60, 3))
    c, s = math.cos(angle), math.sin(angle)
    moved = (
        points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    )
    order = r.permutation(60)
    before = responses(knn_graph(points, 6), points, form)
    moved = (moved + shift)[order]
    np.testing.assert_allclose(
        responses(knn_graph(moved, 6), moved, form), before[order], rtol=1e-6, atol=1e-9
    )
