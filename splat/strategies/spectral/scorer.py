"""Pruning by spectrum for finished scenes: a method of `splat export --prune`."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.codecs.search import Scorer
from splat.core import Gaussians
from splat.strategies.spectral.selection import spectral_scores


def _extremeness(gaussians: Gaussians, viewpoints: object) -> Tensor:
    """[N] how far from the middle of all answers each one's is, in ranks: the middle goes first, both ends stay."""
    order = spectral_scores(gaussians).argsort(stable=True)
    rank = torch.empty(len(gaussians), dtype=torch.float64)
    rank[order] = torch.arange(len(gaussians), dtype=torch.float64)
    return (rank - (len(gaussians) - 1) / 2).abs()


NAME = "spectral"
SCORER = Scorer(NAME, "those neither smooth nor sharp in the graph of neighbours go first", _extremeness)
