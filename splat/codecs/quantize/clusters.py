"""Vector quantization: nearest codewords, k-means, entropy-constrained codebooks.

Points and codewords are float32 [N, D] and [K, D]. On the CPU the work is native and gives the same bits
whatever the number of threads; on a GPU it is torch's, with sums in any order. Everything random follows
from `seed`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splat import _native
from splat.codecs.quantize.cells import Cells, nearest, seed_codewords

# Codebooks of at most so many words are searched whole; of larger ones, on the CPU, the words of the
# nearest cells (cells.py).
_FLAT = 1024
# Scores that a GPU holds at a time: 2^26 floats, 256 MiB.
_SCORES = 1 << 26

Assign = Callable[[Tensor, "Tensor | None"], Tensor]


def assign(points: Tensor, centroids: Tensor, penalties: Tensor | None = None) -> Tensor:
    """[N] int64: for each point the codeword of least |x - c|^2 + penalty, the first among equals.

    The scores are float32, about the centroids' mean: codewords whose scores differ by less than their
    rounding (some 1e-6 of the largest |x - mean| |c - mean|) count as equals.

    Args:
        points: [N, D] float.
        centroids: [K, D] float, K > 0.
        penalties: [K] added to the squared distances, for example lambda times the bits of each index.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if points.dim() != 2 or centroids.dim() != 2 or points.shape[1] != centroids.shape[1]:
        raise ValueError(f"expected [N, D] and [K, D], got {list(points.shape)} and {list(centroids.shape)}")
    if len(centroids) == 0:
        raise ValueError("there is no codeword to choose")
    if penalties is not None and penalties.shape != centroids.shape[:1]:
        raise ValueError(f"penalties: expected [{len(centroids)}], got {list(penalties.shape)}")
    points, centroids = points.detach().float().contiguous(), centroids.detach().float().contiguous()
    if penalties is not None:
        penalties = penalties.detach().to(points.device, torch.float32).contiguous()
    if points.device.type == "cpu":
        return nearest(points, centroids, penalties)
    middle = centroids.mean(0)
    points, centroids = points - middle, centroids - middle
    bias = 0.5 * centroids.square().sum(1)
    if penalties is not None:
        bias = bias + 0.5 * penalties
    rows = max(1, _SCORES // len(centroids))
    parts = [torch.addmm(bias, part, centroids.mT, alpha=-1).argmin(1) for part in points.split(rows)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=points.device)


def kmeans(
    points: Tensor, k: int, *, seed: int = 0, iterations: int = 10, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codewords of locally least weighted squared error.

    k-means++ seeds (Arthur & Vassilvitskii 2007) keep outliers, of which harmonics have many, from being
    averaged away; Lloyd's iterations follow, in which a codeword without points moves to the point that
    is served worst. More than 1,024 codewords are found on two levels (cells.py).

    Args:
        points: [N, D] float, finite.
        k: number of codewords wanted, at least 1.
        iterations: of Lloyd's algorithm; it ends sooner where no point changes.
        weights: [N], not negative: how much each point's squared error counts. None: all alike.

    Returns:
        [K, D] float32 codewords, K = k or, where there are fewer distinct points (of positive weight),
        their number; [N] int64 label of each point. With at most 1,024 codewords, or on a GPU, the labels
        are those of `assign`; with more they are the nearest of the codewords of the nearest cells.
    """
    centroids, labels, _ = _cluster(points, k, 0.0, seed, iterations, weights)
    return centroids, labels


def ecvq(
    points: Tensor,
    k: int,
    lam: float,
    *,
    seed: int = 0,
    iterations: int = 10,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy-constrained vector quantization: least weighted (|x - c|^2 + lam bits(c)).

    bits(c) = -log2 of the share of the points that codeword c serves. Codewords that serve none are
    dropped. With lam = 0 the codewords are those of `kmeans`.

    Source: Chou, Lookabaugh & Gray 1989; used for Gaussians by RDO-Gaussian (Wang et al. 2024).

    Returns:
        [K, D] codewords, K <= k; [N] int64 labels; [K] float32 bits of each codeword.
    """
    if not lam >= 0:
        raise ValueError(f"lam must not be negative, got {lam}")
    return _cluster(points, k, lam, seed, iterations, weights)


def _cluster(
    points: Tensor, k: int, lam: float, seed: int, iterations: int, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if points.dim() != 2 or len(points) == 0:
        raise ValueError(f"points: expected [N > 0, D], got {list(points.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    points = points.detach().float().contiguous()
    if weights is not None:
        if weights.shape != points.shape[:1]:
            raise ValueError(f"weights: expected [{len(points)}], got {list(weights.shape)}")
        weights = weights.detach().to(points.device, torch.float32).contiguous()
    generator = torch.Generator().manual_seed(seed)
    host_weights = None if weights is None else weights.cpu()
    centroids, cells = seed_codewords(points.cpu(), k, generator, host_weights, flat=_FLAT)
    centroids = centroids.to(points.device)
    if cells is None or points.device.type != "cpu":
        return _lloyd(points, centroids, lam, iterations, weights, assign_whole(points))
    # Points lie in the order of their cells while the words of the nearest cells are searched.
    ordered = points[cells.order]
    kept = None if weights is None else weights[cells.order]
    centroids, labels, bits = _lloyd(ordered, centroids, lam, iterations, kept, _assign_cells(ordered, cells))
    back = torch.empty_like(labels)
    back[cells.order] = labels
    return centroids, back, bits


def assign_whole(points: Tensor) -> Assign:
    return lambda centroids, penalties: assign(points, centroids, penalties)


def _assign_cells(ordered: Tensor, cells: Cells) -> Assign:
    return lambda centroids, penalties: cells.assign(ordered, centroids, penalties)


def _lloyd(
    points: Tensor, centroids: Tensor, lam: float, iterations: int, weights: Tensor | None, find: Assign
) -> tuple[Tensor, Tensor, Tensor]:
    """Alternates labels and centroids; see `kmeans` and `ecvq`."""
    k = len(centroids)
    labels = find(centroids, None)
    for _ in range(iterations):
        centroids, empty = _update(points, labels, centroids, weights)
        if lam == 0 and bool(empty.any()):
            _repair(points, labels, centroids, empty, weights)
        penalties = lam * _bits(labels, k) if lam > 0 else None
        changed = find(centroids, penalties)
        if torch.equal(changed, labels):
            break
        labels = changed
    if lam > 0:
        used, labels = torch.unique(labels, return_inverse=True)
        centroids, _ = _update(points, labels, centroids[used], weights)
    return centroids, labels, _bits(labels, len(centroids))


def _bits(labels: Tensor, k: int) -> Tensor:
    """[k] -log2 of each label's share; a label that nothing has counts as had by half a point."""
    counts = torch.bincount(labels, minlength=k).double()
    return (counts.sum() / counts.clamp(min=0.5)).log2().float()


def _update(
    points: Tensor, labels: Tensor, centroids: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[K, D] weighted means of the points of each label, and [K] bool: labels of no weight, left as they are."""
    sums, mass = accumulate(points, labels, len(centroids), weights)
    empty = mass == 0
    means = (sums / mass.clamp(min=torch.finfo(torch.float64).tiny)[:, None]).float()
    return torch.where(empty[:, None], centroids, means), empty


def accumulate(
    points: Tensor, labels: Tensor, k: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """[k, D] sums of weight x point, and [k] sums of weights, over the points of each label; float64."""
    sums = torch.zeros(k, points.shape[1], dtype=torch.float64, device=points.device)
    mass = torch.zeros(k, dtype=torch.float64, device=points.device)
    if points.device.type == "cpu":
        _native.accumulate(points, weights, labels.int(), sums, mass, torch.get_num_threads())
        return sums, mass
    ones = torch.ones(len(points), device=points.device) if weights is None else weights
    mass.index_add_(0, labels, ones.double())
    sums.index_add_(0, labels, points.double() * ones.double()[:, None])
    return sums, mass


def _repair(points: Tensor, labels: Tensor, centroids: Tensor, empty: Tensor, weights: Tensor | None) -> None:
    """Moves codewords without points, in place, to the points of largest weighted error."""
    errors = (points - centroids[labels]).square().sum(1)
    if weights is not None:
        errors = errors * weights
    places = torch.where(empty)[0]
    worst = errors.sort(descending=True, stable=True).indices[: len(places)]
    worst = worst[errors[worst] > 0]
    centroids[places[: len(worst)]] = points[worst]
