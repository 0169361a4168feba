"""The view-dependent colour in components that count: what photographs saw, in order of what it amounts to.

Photographs see a scene from some directions only. Harmonics that look alike from there need not be told apart, and
those that are as good as constant there belong to the base colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Components that are kept, and in which codebook they are: the first two, the next three, four more.
PARTS = {"view1": (0, 2), "view2": (2, 5), "view3": (5, 9)}
_RIDGE = 1e-4  # of the metric's trace: so much counts what no photograph saw


@dataclass
class Basis:
    """For K harmonics, of which R components are kept.

    Attributes:
        constant: [K - 1] what a unit of each harmonic above degree 0 adds to the base colour.
        analysis: [R, K - 1] from these harmonics to components.
        synthesis: [R, K - 1] from components to harmonics, `components @ synthesis`.
    """

    constant: Tensor
    analysis: Tensor
    synthesis: Tensor

    @staticmethod
    def of(sh: Tensor, weight: Tensor | None = None, metric: Tensor | None = None) -> Basis:
        """The basis of [N, K, 3] harmonics: their principal components, where

        Args:
            weight: [N] counts each Gaussian; by default all alike.
            metric: [K, K] mean of the products of the harmonics over the directions from which they are seen, in
                units of the first; by default all directions.
        """
        degrees = sh.shape[1] - 1
        if degrees == 0:
            return Basis(*(sh.new_zeros(shape) for shape in ((0,), (0, 0), (0, 0))))
        values = sh[:, 1:].detach().double()
        alike = torch.eye(degrees + 1, dtype=torch.float64, device=sh.device)
        found = alike if metric is None or float(metric.trace()) == 0 else metric.double()
        found = found + _RIDGE * alike * found.trace() / (degrees + 1)
        constant = found[0, 1:] / found[0, 0]
        root = torch.linalg.cholesky(found[1:, 1:] / found[0, 0] - torch.outer(constant, constant))
        components = torch.einsum("nkc,kj->njc", values, root)
        scaled = components if weight is None else components * weight.double()[:, None, None]
        _, axes = torch.linalg.eigh(torch.einsum("njc,nkc->jk", scaled, components))
        kept = axes.flip(1)[:, : max(end for _, end in PARTS.values())]
        analysis, synthesis = kept.T @ root.T, kept.T @ torch.linalg.inv(root)
        return Basis(constant.float(), analysis.float(), synthesis.float())

    def color(self, sh: Tensor) -> Tensor:
        """[N, 3] base colour from [N, K, 3] harmonics: their mean over what is seen, as far as one number tells it."""
        return sh[:, 0] + torch.einsum("k,nkc->nc", self.constant, sh[:, 1:])

    def components(self, sh: Tensor, part: str) -> Tensor:
        """[N, D] the components of a part, of red, green and blue each."""
        first, end = PARTS[part]
        return torch.einsum("rk,nkc->nrc", self.analysis[first:end], sh[:, 1:]).flatten(1)

    def harmonics(self, components: Tensor, part: str) -> Tensor:
        """[N, K, 3] the harmonics of [N, D] components of a part, with a base colour of 0."""
        first, end = PARTS[part]
        rest = torch.einsum("rk,nrc->nkc", self.synthesis[first:end], components.unflatten(1, (-1, 3)))
        return torch.cat([-torch.einsum("k,nkc->nc", self.constant, rest)[:, None], rest], 1)

    def widths(self) -> dict[str, int]:
        """Part -> D, of those that there are."""
        sizes = {part: 3 * len(self.analysis[first:end]) for part, (first, end) in PARTS.items()}
        return {part: size for part, size in sizes.items() if size}


def kept(degree: int) -> int:
    """The number R of components of harmonics up to a degree."""
    return min((degree + 1) ** 2 - 1, max(end for _, end in PARTS.values()))
