"""Scorers: which Gaussians a scene would miss least, for `splat export --prune`.

A scorer gives every Gaussian a number; those with the lowest are left out first. New ones are added with
`register`, after which the command knows them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, UsageError


@dataclass(frozen=True)
class Viewpoints:
    """From where a scene is seen.

    Attributes:
        cameras: in the scene's own coordinates.
        draw: (gaussians, camera, needs) -> render output, with the outputs of `needs` (raster.api.NEEDS).
    """

    cameras: Sequence[Camera]
    draw: Callable[[Gaussians, Camera, frozenset[str]], Any]


Score = Callable[[Gaussians, "Viewpoints | None"], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A way of telling how much a Gaussian matters.

    Attributes:
        name: what --method calls it.
        summary: a line for people.
        score: (gaussians, viewpoints) -> [N] numbers, the least wanted lowest; the same for the same input.
        needs_views: whether the viewpoints must be there.
    """

    name: str
    summary: str
    score: Score
    needs_views: bool = False


def _opacity(gaussians: Gaussians, viewpoints: Viewpoints | None) -> Tensor:
    return gaussians.logit_opacities.double()


def _random(gaussians: Gaussians, viewpoints: Viewpoints | None) -> Tensor:
    return torch.rand(len(gaussians), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _contribution(gaussians: Gaussians, viewpoints: Viewpoints | None) -> Tensor:
    """Sum of the blending weights over all pixels of all views (as LightGaussian, Fan et al. 2024, sec. 4.1,
    counts significance, without its factor of volume)."""
    assert viewpoints is not None
    total = torch.zeros(len(gaussians), dtype=torch.float64)
    for camera in viewpoints.cameras:
        output = viewpoints.draw(gaussians, camera, frozenset({"contribution"}))
        total += output.contribution.double().cpu()
    return total


_SCORERS: dict[str, Scorer] = {}


def register(scorer: Scorer) -> Scorer:
    """Make a scorer known by its name; ValueError where the name is taken."""
    if scorer.name in _SCORERS:
        raise ValueError(f"a scorer called {scorer.name!r} is registered already")
    _SCORERS[scorer.name] = scorer
    return scorer


register(Scorer("opacity", "the most transparent go first", _opacity))
register(
    Scorer(
        "contribution",
        "those that add least to the pixels of the training views go first",
        _contribution,
        True,
    )
)
register(Scorer("random", "any may go: a baseline", _random))


def names() -> tuple[str, ...]:
    """The names of all scorers."""
    return tuple(_SCORERS)


def scorer(name: str) -> Scorer:
    """The scorer of that name; UsageError where there is none."""
    if name not in _SCORERS:
        raise UsageError(f"no pruning method is called {name!r}; there are {', '.join(_SCORERS)}")
    return _SCORERS[name]


def ranking(name: str, gaussians: Gaussians, viewpoints: Viewpoints | None = None) -> Tensor:
    """[N] int64 Gaussians from the most to the least wanted; equals stay in their order.

    Raises:
        UsageError: no such method, or one that needs views where there are none.
    """
    method = scorer(name)
    if method.needs_views and (viewpoints is None or not viewpoints.cameras):
        raise UsageError(
            f"--method {name} needs the cameras of a dataset: export a run, or name the dataset with --data"
        )
    scores = method.score(gaussians, viewpoints).detach().to("cpu", torch.float64)
    return torch.argsort(scores.nan_to_num(nan=-torch.inf), descending=True, stable=True)
