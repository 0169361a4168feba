"""Codebooks of several parts: product and residual vector quantization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.codecs.quantize.clusters import assign, kmeans


def product_kmeans(
    points: Tensor,
    groups: Sequence[int],
    k: int,
    *,
    seed: int = 0,
    iterations: int = 10,
    weights: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """A codebook for each group of neighbouring components (Jegou et al. 2011).

    Args:
        points: [N, D].
        groups: widths of the groups, which sum to D.

    Returns:
        A codebook [K_g, width] for each group, K_g <= k, and [N, G] int64 labels.
    """
    if sum(groups) != points.shape[1] or min(groups, default=0) < 1:
        raise ValueError(f"groups {list(groups)} do not add up to the {points.shape[1]} components")
    parts = [
        kmeans(part, k, seed=seed + number, iterations=iterations, weights=weights)
        for number, part in enumerate(points.split(list(groups), 1))
    ]
    return [codebook for codebook, _ in parts], torch.stack([labels for _, labels in parts], 1)


def product_decode(codebooks: Sequence[Tensor], labels: Tensor) -> Tensor:
    """[N, D] from the codebooks and the labels [N, G]."""
    return torch.cat([codebook[labels[:, g]] for g, codebook in enumerate(codebooks)], 1)


def residual_kmeans(
    points: Tensor,
    sizes: Sequence[int],
    *,
    seed: int = 0,
    iterations: int = 10,
    weights: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """A codebook for the points, then one for what it leaves, and so on (Juang & Gray 1982).

    Args:
        points: [N, D].
        sizes: the number of words of each stage.

    Returns:
        A codebook [K_s, D] for each stage, K_s <= sizes[s], and [N, S] int64 labels.
    """
    rest, codebooks, labels = points.detach().float(), [], []
    for number, size in enumerate(sizes):
        codebook, _ = kmeans(rest, size, seed=seed + number, iterations=iterations, weights=weights)
        chosen = assign(rest, codebook)
        rest = rest - codebook[chosen]
        codebooks.append(codebook)
        labels.append(chosen)
    return codebooks, torch.stack(labels, 1)


def residual_decode(codebooks: Sequence[Tensor], labels: Tensor) -> Tensor:
    """[N, D] from the codebooks and the labels [N, S]."""
    return torch.stack([codebook[labels[:, s]] for s, codebook in enumerate(codebooks)]).sum(0)
