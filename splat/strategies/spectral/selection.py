"""Which Gaussians stay when a share of them must go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from splat.codecs import search
from splat.codecs.quantize.order import morton_order
from splat.core import Gaussians, UsageError
from splat.strategies.spectral.graph import Form, Graph, high_pass, knn_graph, responses

Method = Literal["spectral", "contribution", "opacity", "random"]
METHODS: tuple[Method, ...] = ("spectral", "contribution", "opacity", "random")
Signal = Literal["position", "colour", "opacity"]
Pick = Literal["extremes", "drawn", "spread"]
Taken = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """How a scene's graph spectrum decides.

    Attributes:
        gamma: share of those that stay taken from the top of the answers; the others are from the bottom.
        pick: the extreme answers; or chances in proportion to the answer, drawn at random or spread out evenly.
        neighbours: nearest ones that each Gaussian is joined with.
        form: of the filter; see graph.responses.
        signals: what is filtered; see spectral_scores.
    """

    gamma: float = 1.0
    pick: Pick = "spread"
    neighbours: int = 16
    form: Form = "paper"
    signals: tuple[Signal, ...] = ("opacity",)


_TINY = torch.finfo(torch.float64).tiny
_ONE = 1 << 32  # a chance of 1, as a whole number

# As published: half of the kept share from either end of the answers of the centres.
PUBLISHED = Spectrum(gamma=0.5, pick="extremes", signals=("position",))


def spectral_scores(gaussians: Gaussians, spectrum: Spectrum) -> Tensor:
    """[N] float64, on the CPU: how unlike its neighbours each Gaussian is.

    The answers of position and colour are their size, as published (graph.responses). That of the opacity has a
    sign: how far a Gaussian stands out above its neighbours, below 0 where they hide it. So the top are the local
    maxima, which lie apart, where the most opaque may be a crowd. Several signals count alike: each one's answers
    are divided by their mean size before they are added up.
    """
    graph = knn_graph(gaussians.means.detach().cpu().numpy(), spectrum.neighbours)
    total = torch.zeros(len(gaussians), dtype=torch.float64)
    for signal in spectrum.signals:
        answers = _answers(graph, gaussians, signal, spectrum.form)
        total += answers / answers.abs().mean().clamp(min=_TINY)
    return total


def _answers(graph: Graph, gaussians: Gaussians, signal: Signal, form: Form) -> Tensor:
    if signal == "opacity":
        values = gaussians.opacities().detach().double().cpu().numpy()[:, None]
        return torch.from_numpy(high_pass(graph, values, form)[:, 0])
    values = (gaussians.means if signal == "position" else gaussians.sh[:, 0]).detach().double().cpu().numpy()
    return torch.from_numpy(responses(graph, values, form))


def both_ends(scores: Tensor, count: int, gamma: float, taken: Taken) -> Tensor:
    """[N] bool: `count` Gaussians of [N] scores, a share `gamma` of them from the top and the rest from the bottom.

    Yang et al. 2024, section 3.2: the top of the high-pass answers holds detail, the bottom what is smooth.

    Args:
        taken: (weights [M], rows [M], count) -> [count] int64, which of M Gaussians are taken: `extremes`, or
            what `drawn` or `spread` give. The weights are the scores at the top, and their inverses at the bottom.
    """
    top = round(gamma * count)
    scores = scores.double()
    keep = torch.zeros(scores.shape[0], dtype=torch.bool)
    rows = torch.arange(len(scores))
    keep[taken(scores, rows, top)] = True
    rest = rows[~keep]
    low = scores[rest] - scores.amin().clamp(max=0) if len(rest) else scores[rest]
    keep[rest[taken(1 / (low + 1e-6 * low.mean()).clamp(min=_TINY), rest, count - top)]] = True
    return keep


def extremes(weights: Tensor, rows: Tensor, count: int) -> Tensor:
    """The `count` largest weights; of equal ones the first."""
    return torch.sort(weights, descending=True, stable=True).indices[:count]


def drawn(generator: torch.Generator) -> Taken:
    """Draws without replacement, with chances in proportion to the weight; weights up to 0 count as next to nothing."""

    def take(weights: Tensor, rows: Tensor, count: int) -> Tensor:
        # The largest of log w + Gumbel noise (Efraimidis and Spirakis 2006, in logarithms).
        uniform = torch.rand(weights.shape, dtype=torch.float64, generator=generator)
        exponential = (-torch.log(uniform.clamp(min=_TINY))).clamp(min=_TINY)
        return extremes(weights.clamp(min=_TINY).log() - torch.log(exponential), rows, count)

    return take


def spread(places: Tensor) -> Taken:
    """Takes as many everywhere as the weights there are worth.

    Systematic sampling (Madow 1949) along a curve through the [N, 3] `places` that stays near where it is (Morton
    order): each is taken with a chance in proportion to its weight, at most 1, and any stretch of the curve yields
    the sum of its chances to within one. Without randomness. Weights up to 0 are taken after all others.
    """

    def take(weights: Tensor, rows: Tensor, count: int) -> Tensor:
        positive = (weights > 0).nonzero()[:, 0]
        if len(positive) <= count:
            return extremes(weights, rows, count)
        along = positive[morton_order(places[rows[positive]])]
        # The sum of whole numbers is exact: a chance of 1 crosses one mark, and all of them `count`.
        ends = (_chances(weights[along], count) * _ONE).round().long().cumsum(0)
        marks = (ends + _ONE // 2) // _ONE
        return along[marks.diff(prepend=marks.new_zeros(1)) > 0]

    return take


def _chances(weights: Tensor, count: int) -> Tensor:
    """[M] in (0, 1], proportional to the positive weights where below 1, that sum up to `count` < M."""
    ordered = weights.sort(descending=True).values
    below = ordered.flip(0).cumsum(0).flip(0)  # the sum of each and all smaller ones
    certain = torch.arange(len(weights), dtype=torch.float64)
    factors = (count - certain) / below  # if so many of the largest are certain
    fits = (factors * ordered <= 1).nonzero()
    return (factors[fits[0, 0]] * weights).clamp(max=1)


def _taken(spectrum: Spectrum, gaussians: Gaussians, generator: torch.Generator | None) -> Taken:
    if spectrum.pick == "spread":
        return spread(gaussians.means.detach().cpu())
    return drawn(generator or torch.Generator().manual_seed(0)) if spectrum.pick == "drawn" else extremes


@dataclass(frozen=True)
class Summed:
    """A contribution that was added up before: what is seen, for search.ranking."""

    values: Tensor | None

    def contribution(self, gaussians: Gaussians) -> Tensor | None:
        return self.values


def chosen(
    gaussians: Gaussians,
    count: int,
    method: Method,
    *,
    spectrum: Spectrum | None = None,
    contribution: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """[N] bool, on the Gaussians' device: the `count` of them that stay.

    Args:
        method: "spectral"; or another of splat.codecs.search, to compare with.
        spectrum: for "spectral"; None is the default one.
        contribution: [N] blending weight summed over views; needed for that method.
        generator: on the CPU; for "random" and for a spectrum that is drawn from.

    Raises:
        UsageError: the method is unknown or lacks what it needs.
    """
    if method not in METHODS:
        raise UsageError(f"no method {method!r} of pruning; choose from {', '.join(METHODS)}")
    if method == "spectral":
        spectrum = spectrum or Spectrum()
        scores = spectral_scores(gaussians, spectrum)
        return both_ends(scores, count, spectrum.gamma, _taken(spectrum, gaussians, generator)).to(
            gaussians.device
        )
    keep = torch.zeros(len(gaussians), dtype=torch.bool)
    keep[search.ranking(method, gaussians, Summed(contribution), generator)[:count]] = True
    return keep.to(gaussians.device)
