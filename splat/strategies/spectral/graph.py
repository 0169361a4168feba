"""A graph on the centres of a scene, and how unlike its neighbours each of them is.

Yang et al., "Spectrally Pruned Gaussian Fields with Neural Compensation" (SUNDAE), 2024, section 3.2. Its
neighbourhood, a radius set by the closest pair of the whole scene, leaves nearly every Gaussian of a real scene
without neighbours; here the k nearest are joined instead. Nothing dense is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from splat.core import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Form = Literal["paper", "released"]


@dataclass(frozen=True)
class Graph:
    """Who is near whom.

    Attributes:
        place: [N] int64, the vertex of each centre: centres at the same place are one vertex.
        points: [V, 3] float64, the places of the vertices.
        squared: [V, V] sparse and symmetric, squared distances of those joined, all positive.
    """

    place: NDArray[np.int64]
    points: NDArray[np.float64]
    squared: csr_matrix

    @property
    def isolated(self) -> float:
        """The share of the vertices that have no neighbour."""
        degrees = np.diff(self.squared.indptr)
        return float((degrees == 0).mean()) if degrees.size else 0.0


def knn_graph(centres: NDArray[np.floating], neighbours: int = 16) -> Graph:
    """Each of [N, 3] centres joined with its `neighbours` nearest, and with those that it is among the nearest of.

    Raises:
        DataError: a centre is NaN or infinite.
    """
    from scipy.sparse import csr_matrix
    from scipy.spatial import cKDTree

    if not np.isfinite(centres).all():
        raise DataError("the graph needs finite centres; a Gaussian lies at NaN or infinity")
    points, place = np.unique(np.asarray(centres, np.float64), axis=0, return_inverse=True)
    count = len(points)
    wanted = min(neighbours, count - 1)
    if wanted < 1:
        return Graph(place.reshape(-1), points, csr_matrix((count, count)))
    distances, near = cKDTree(points).query(points, wanted + 1, workers=-1)
    # The first is the point itself, and no other is at distance 0; squares of tiny distances may underflow.
    squared = np.maximum(distances[:, 1:] ** 2, np.finfo(np.float64).tiny).reshape(-1)
    rows = np.repeat(np.arange(count, dtype=np.int32), wanted)
    one_way = csr_matrix((squared, (rows, near[:, 1:].astype(np.int32).reshape(-1))), (count, count))
    return Graph(place.reshape(-1), points, one_way.maximum(one_way.T).tocsr())


def responses(graph: Graph, signal: NDArray[np.floating], form: Form = "paper") -> NDArray[np.float64]:
    """[N] how strongly the high-pass filter of the graph answers at each centre.

    Args:
        signal: [N, C] values at the centres; those of centres at one place are averaged.
        form: "paper": |((I - A) x)_i|^2 with A the weights exp(-d^2 / 2 sigma^2) divided by their sum at i, so that
            the answer is the squared distance of x_i from the mean of its neighbours. "released", as the authors'
            code has it: |((D - W) x)_i| with weights exp(-d^4 / (2 var(d^2))).
    """
    squares = (high_pass(graph, _averaged(graph, np.asarray(signal, np.float64)), form) ** 2).sum(1)
    return squares if form == "paper" else np.sqrt(squares)


def high_pass(graph: Graph, signal: NDArray[np.floating], form: Form = "paper") -> NDArray[np.float64]:
    """[N, C] what is left of a signal [N, C] without what neighbours share: (I - A) x, or (D - W) x as released.

    Of centres at one place each has its own value, and the mean of all of them as its part in what others see.
    """
    values = np.asarray(signal, np.float64)
    means = _at_vertices(graph, values)
    if form == "paper":
        near = _row_softmax(graph.squared, 2 * _mean_distance(graph) ** 2)
        degrees = (np.diff(graph.squared.indptr) > 0).astype(np.float64)[:, None]
    else:
        near = graph.squared.copy()
        spread = 2 * near.data.var() if near.nnz else 0.0
        near.data = np.exp(-(near.data**2) / spread) if spread > 0 else np.ones_like(near.data)
        degrees = np.asarray(near.sum(1)).reshape(-1, 1)
    return degrees[graph.place] * values - (near @ means)[graph.place]


def _mean_distance(graph: Graph) -> float:
    return float(np.sqrt(graph.squared.data).mean()) if graph.squared.nnz else 1.0


def _row_softmax(squared: csr_matrix, spread: float) -> csr_matrix:
    """exp(-d^2 / spread) divided by its sum over each row.

    The smallest distance of a row is taken off first, which the division undoes: the weights of a centre far from
    all others would be 0 / 0 otherwise.
    """
    weights = squared.copy()
    counts = np.diff(weights.indptr)
    starts = weights.indptr[:-1][counts > 0]
    if starts.size == 0:
        return weights
    smallest = np.repeat(np.minimum.reduceat(weights.data, starts), counts[counts > 0])
    weights.data = np.exp((smallest - weights.data) / spread)
    weights.data /= np.repeat(np.add.reduceat(weights.data, starts), counts[counts > 0])
    return weights


def _averaged(graph: Graph, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, C] the values, those of centres at one place made alike."""
    return _at_vertices(graph, values)[graph.place]


def _at_vertices(graph: Graph, signal: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(graph.points) == len(graph.place):
        values = np.empty_like(signal)
        values[graph.place] = signal
        return values
    counts = np.bincount(graph.place, minlength=len(graph.points))
    return np.stack([np.bincount(graph.place, column) / counts for column in signal.T], axis=1)
