"""Depth of a prior, up to scale and shift: what a network or a sensor says of each photograph.

Pearson correlation: Zhu et al., FSGS, ECCV 2024; Chung et al. 2024. Scale-and-shift-invariant error: Ranftl et al.,
MiDaS, TPAMI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.core import UsageError
from splat.data.priors import Prior, priors
from splat.raster.constants import NEAR
from splat.strategies.sparse.geometry import OPAQUE, kept_mean
from splat.training.context import Context
from splat.training.strategy import Strategy

_FEWEST = 16  # pixels from which scale and shift are fitted


@dataclass(frozen=True)
class PriorConfig:
    """Agreement with a prior of depth."""

    on: bool = False
    """Whether to use it."""
    provider: str = "files"
    """Where it comes from: files (depths/NAME.npy or .png beside the images), onnx, or an installed provider."""
    model: str | None = None
    """The model of the provider onnx, a file."""
    inverse: bool = False
    """Whether that model gives inverse depth."""
    loss: Literal["pearson", "ssi"] = "pearson"
    """1 - correlation of the depths, or the mean absolute difference after the best scale and shift."""
    space: Literal["depth", "disparity"] = "disparity"
    """Whether depths or their inverses are compared."""
    weight: float = 0.1
    """Weight in the loss."""
    stop: float = 1.0
    """When it ends, as a share of the run."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UsageError(f"sparse_view: prior.weight must not be negative, got {self.weight}")
        if not 0 <= self.stop <= 1:
            raise UsageError(f"sparse_view: prior.stop must lie in [0, 1], got {self.stop}")


class DepthPrior(Strategy):
    """Keeps no state; a view without a prior is left alone."""

    name: ClassVar[str] = "prior"
    config_type: ClassVar[type] = PriorConfig
    needs = frozenset({"depth"})
    config: PriorConfig
    prior: Prior

    def setup(self, ctx: Context) -> None:
        c = self.config
        options = {"model": c.model, "inverse": c.inverse} if c.model is not None else {}
        self.prior = priors("depth", c.provider, options)
        dataset = ctx.views.dataset
        if all(self.prior.at(dataset, view) is None for view in dataset.train):
            raise UsageError(
                f"sparse_view: prior.on is set, but {c.provider} has no depth of any training view of "
                f"{dataset.scene.root}; put depths/NAME.npy beside the images, or switch it off"
            )

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        c = self.config
        found = self.prior.at(ctx.views.dataset, ctx.view)
        if c.weight == 0 or ctx.step >= c.stop * ctx.steps or found is None:
            return {}
        depth = ctx.output.depth
        assert depth is not None
        found = found.to(depth)
        if found.shape != depth.shape:  # coarse to fine: the nearest of each pixel's
            rows, columns = (
                ((torch.arange(n, device=depth.device) + 0.5) * m / n).long()
                for n, m in zip(depth.shape, found.shape, strict=True)
            )
            found = found[rows[:, None], columns]
        kept = (found > 0) & (depth.detach() > NEAR) & (ctx.output.alpha > OPAQUE)
        if ctx.mask is not None:
            kept &= ctx.mask != 0
        if int(kept.sum()) < _FEWEST:
            return {}
        if c.space == "disparity":
            depth = 1 / depth.clamp_min(NEAR)
            found = torch.where(kept, 1 / found.clamp_min(1e-12), 0)
        error = pearson(depth, found, kept) if c.loss == "pearson" else scale_shift(depth, found, kept)
        return {c.loss: c.weight * error}


def pearson(values: Tensor, prior: Tensor, kept: Tensor) -> Tensor:
    """1 - the correlation of `values` with `prior`, both [H, W], over the pixels of `kept`; 1 where either is flat."""
    a = torch.where(kept, values - kept_mean(values, kept), 0)
    b = torch.where(kept, prior - kept_mean(prior, kept), 0)
    scale = (a.square().sum() * b.square().sum()).clamp_min(torch.finfo(values.dtype).tiny)
    return 1 - (a * b).sum() / scale.sqrt()


def scale_shift(values: Tensor, prior: Tensor, kept: Tensor) -> Tensor:
    """Mean |s prior + t - values| over the pixels of `kept`, s and t of the least squares, in units of the values'
    mean absolute deviation from their mean."""
    with torch.no_grad():
        v, p = values[kept].double(), prior[kept].double()
        centred = p - p.mean()
        s = (centred * v).sum() / centred.square().sum().clamp_min(1e-30)
        t = v.mean() - s * p.mean()
        fitted = (s * prior.double() + t).to(values)
        spread = (v - v.mean()).abs().mean().clamp_min(1e-12).to(values)
    return kept_mean((fitted - values).abs(), kept) / spread
