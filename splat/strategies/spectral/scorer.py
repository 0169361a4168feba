"""Pruning by spectrum for finished scenes: a method of `splat export --prune`."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.codecs.search import Scorer, register
from splat.core import Gaussians
from splat.strategies.spectral.selection import Spectrum, spectral_scores


def _score(gaussians: Gaussians, contribution: Tensor | None, generator: torch.Generator) -> Tensor:
    return spectral_scores(gaussians, Spectrum())


register(Scorer("spectral", "those go first that are much less opaque than their neighbours", _score))
