"""Which Gaussians stay when a share of them must go."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.strategies.spectral.graph import Form, knn_graph, responses

Method = Literal["spectral", "contribution", "opacity", "random"]
METHODS: tuple[Method, ...] = ("spectral", "contribution", "opacity", "random")
Signal = Literal["position", "colour", "opacity"]


def spectral_scores(
    gaussians: Gaussians,
    *,
    neighbours: int = 16,
    form: Form = "paper",
    signals: tuple[Signal, ...] = ("position",),
) -> Tensor:
    """[N] float64, on the CPU: how unlike its neighbours each Gaussian is; see graph.responses.

    Several signals count alike: each one's answers are divided by their mean before they are added up.
    """
    values = {
        "position": gaussians.means,
        "colour": gaussians.sh[:, 0],
        "opacity": gaussians.opacities()[:, None],
    }
    graph = knn_graph(gaussians.means.detach().cpu().numpy(), neighbours)
    total = torch.zeros(len(gaussians), dtype=torch.float64)
    for signal in signals:
        answers = torch.from_numpy(responses(graph, values[signal].detach().double().cpu().numpy(), form))
        total += answers / answers.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return total


def both_ends(
    scores: Tensor, count: int, gamma: float = 0.5, generator: torch.Generator | None = None
) -> Tensor:
    """[N] bool: `count` Gaussians of [N] scores, a share `gamma` of them from the top and the rest from the bottom.

    Yang et al. 2024, section 3.2: the top of the high-pass answers holds detail, the bottom what is smooth.

    Args:
        generator: draws instead of sorting: at the top with chances in proportion to the score, at the bottom to
            its inverse. None takes the extremes.
    """
    top = round(gamma * count)
    keep = torch.zeros(scores.shape[0], dtype=torch.bool)
    positive = scores.double().clamp(min=torch.finfo(torch.float64).tiny)
    keep[_best(positive.log(), top, generator)] = True
    rest = (~keep).nonzero()[:, 0]
    keep[rest[_best(-positive[rest].log(), count - top, generator)]] = True
    return keep


def chosen(
    gaussians: Gaussians,
    count: int,
    method: Method,
    *,
    gamma: float = 0.5,
    contribution: Tensor | None = None,
    generator: torch.Generator | None = None,
    sampled: bool = False,
    neighbours: int = 16,
    form: Form = "paper",
    signals: tuple[Signal, ...] = ("position",),
) -> Tensor:
    """[N] bool, on the Gaussians' device: the `count` of them that stay.

    Args:
        method: "spectral"; or, to compare with, the largest "opacity", the largest "contribution" to the training
            views, or "random" ones.
        contribution: [N] blending weight summed over views; needed for that method.
        generator: on the CPU; for "random" and for `sampled`.

    Raises:
        UsageError: the method is unknown or lacks what it needs.
    """
    if method == "spectral":
        scores = spectral_scores(gaussians, neighbours=neighbours, form=form, signals=signals)
        return both_ends(scores, count, gamma, generator if sampled else None).to(gaussians.device)
    if method == "opacity":
        scores = gaussians.logit_opacities.detach()
    elif method == "contribution":
        if contribution is None:
            raise UsageError("pruning by contribution needs views: name a run, or a dataset with --data")
        scores = contribution.detach()
    elif method == "random":
        scores = torch.rand(len(gaussians), generator=generator)
    else:
        raise UsageError(f"no method {method!r} of pruning; choose from {', '.join(METHODS)}")
    keep = torch.zeros(len(gaussians), dtype=torch.bool)
    keep[_best(scores.double().cpu(), count, None)] = True
    return keep.to(gaussians.device)


def _best(log_weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """[count] positions of the largest weights, or drawn without replacement in proportion to them.

    Drawing: the largest of log w + Gumbel noise (Efraimidis and Spirakis 2006, in logarithms).
    """
    if generator is not None:
        uniform = torch.rand(log_weights.shape, dtype=torch.float64, generator=generator)
        tiny = torch.finfo(torch.float64).tiny
        exponential = (-torch.log(uniform.clamp(min=tiny))).clamp(min=tiny)
        log_weights = log_weights - torch.log(exponential)
    return torch.sort(log_weights, descending=True, stable=True).indices[:count]
