"""Scorers: which Gaussians a scene would miss least, for `splat export --prune` and for pruning in training.

A scorer gives every Gaussian a number; those with the lowest are left out first. New ones are added with
`register`, after which the command knows them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, UsageError


class Seen(Protocol):
    """What is known of how much of each Gaussian is seen."""

    def contribution(self, gaussians: Gaussians) -> Tensor | None:
        """[N] blending weights, summed over the pixels of all views; None where there are no views."""


@dataclass(frozen=True)
class Viewpoints:
    """From where a scene is seen.

    Attributes:
        cameras: in the scene's own coordinates.
        draw: (gaussians, camera, needs) -> render output, with the outputs of `needs` (raster.options.NEEDS).
    """

    cameras: Sequence[Camera]
    draw: Callable[[Gaussians, Camera, frozenset[str]], Any]

    def contribution(self, gaussians: Gaussians) -> Tensor | None:
        """As LightGaussian (Fan et al. 2024, sec. 4.1) counts significance, without its factor of volume."""
        if not self.cameras:
            return None
        total = torch.zeros(len(gaussians), dtype=torch.float64)
        for camera in self.cameras:
            output = self.draw(gaussians, camera, frozenset({"contribution"}))
            total += output.contribution.double().cpu()
        return total


Score = Callable[[Gaussians, "Tensor | None", torch.Generator], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A way of telling how much a Gaussian matters.

    Attributes:
        name: what --method calls it.
        summary: a line for people.
        score: (gaussians, contribution [N] if it was asked for, generator on the CPU) -> [N] numbers, the least
            wanted lowest; the same for the same input.
        needs_views: whether it asks for the contribution.
    """

    name: str
    summary: str
    score: Score
    needs_views: bool = False


def _opacity(gaussians: Gaussians, contribution: Tensor | None, generator: torch.Generator) -> Tensor:
    return gaussians.logit_opacities


def _random(gaussians: Gaussians, contribution: Tensor | None, generator: torch.Generator) -> Tensor:
    return torch.rand(len(gaussians), generator=generator, dtype=torch.float64)


def _contribution(gaussians: Gaussians, contribution: Tensor | None, generator: torch.Generator) -> Tensor:
    assert contribution is not None
    return contribution


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


def ranking(
    name: str, gaussians: Gaussians, seen: Seen | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """[N] int64 Gaussians from the most to the least wanted, on the CPU; equals stay in their order.

    Args:
        seen: asked for the contribution where the scorer needs it.
        generator: on the CPU, of the scorers that leave something to chance; None is always the same.

    Raises:
        UsageError: no such method, or one that needs views where there are none.
    """
    method = scorer(name)
    contribution = seen.contribution(gaussians) if method.needs_views and seen is not None else None
    if method.needs_views and contribution is None:
        raise UsageError(
            f"--method {name} needs the cameras of a dataset: export a run, or name the dataset with --data"
        )
    scores = method.score(gaussians, contribution, generator or torch.Generator().manual_seed(0))
    scores = scores.detach().to("cpu", torch.float64)
    return torch.argsort(scores.nan_to_num(nan=-torch.inf), descending=True, stable=True)
