"""Opacity dropout: some Gaussians are not drawn in a step, so that the others learn to do without them.

Park et al., "DropGaussian: Structural Regularization for Sparse-view Gaussian Splatting", CVPR 2025 (Gaussians drawn
at random, opacities of the others raised); DropAnSH-GS 2026 (anchors together with their neighbours, whose
correlated colours would otherwise stand in for each other).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.strategies.sparse.nearest import nearest
from splat.training.context import Context
from splat.training.edits import Edit
from splat.training.strategy import Strategy

GONE = -30.0  # a logit whose opacity of 1e-13 no pixel draws
_ALMOST_ONE = 1 - 1e-6


@dataclass(frozen=True)
class DropoutConfig:
    """Gaussians left out at random."""

    on: bool = True
    """Whether to use it."""
    rate: float = 0.4
    """Share that is left out at the end of the run; it rises from zero."""
    anchors: float = 0.0
    """Share of anchors at the end of the run, that are left out together with their neighbours."""
    neighbours: int = 10
    """Neighbours that an anchor takes with it."""

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("anchors", self.anchors)):
            if not 0 <= value < 1:
                raise UsageError(f"sparse_view: dropout.{name} must lie in [0, 1), got {value}")
        if self.neighbours < 1:
            raise UsageError(f"sparse_view: dropout.neighbours must be at least 1, got {self.neighbours}")


class Dropout(Strategy):
    """Draws anew before each render; while evaluating and exporting nothing is left out."""

    name: ClassVar[str] = "dropout"
    config_type: ClassVar[type] = DropoutConfig
    config: DropoutConfig
    _graph: Tensor | None = None  # [N, K] int64 neighbours, until rows change

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        if not ctx.training:
            return gaussians
        share = min(1.0, ctx.step / max(1, ctx.steps))
        logits = gaussians.logit_opacities
        rate = self.config.rate * share
        if rate > 0:
            kept = self._uniform(gaussians, ctx) >= rate
            # The mean over the draws is the opacity itself, but where it would exceed one.
            raised = torch.logit((torch.sigmoid(logits) / (1 - rate)).clamp(max=_ALMOST_ONE))
            logits = torch.where(kept, raised, GONE)
        anchors = self.config.anchors * share
        if anchors > 0 and len(gaussians) > 1:
            chosen = (self._uniform(gaussians, ctx) < anchors).nonzero()[:, 0]
            gone = torch.zeros_like(logits, dtype=torch.bool)
            gone[chosen] = True
            gone[self._neighbours(gaussians)[chosen].flatten()] = True
            logits = torch.where(gone, GONE, logits)
        return replace(gaussians, logit_opacities=logits)

    def _uniform(self, gaussians: Gaussians, ctx: Context) -> Tensor:
        return torch.rand(len(gaussians), generator=ctx.generator, device=gaussians.device)

    def _neighbours(self, gaussians: Gaussians) -> Tensor:
        if self._graph is None:
            self._graph = nearest(gaussians.means, self.config.neighbours)[1]
        return self._graph.to(gaussians.device)  # a checkpoint's is on the CPU

    def edited(self, edit: Edit, ctx: Context) -> None:
        if edit.field == ctx.main.name and edit.kind != "replace":
            self._graph = None

    def state_dict(self) -> dict[str, Any]:
        return {"graph": self._graph}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._graph = state["graph"]
