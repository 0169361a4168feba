"""What is left of a pruned scene takes over for what went, without retraining."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from splat.core import Gaussians

# A survivor takes on at most three times its own: larger ones would blur what is in front of them.
_MOST = 4.0
_OPAQUE = 0.99  # the largest opacity that blending knows


def survivors(gaussians: Gaussians, kept: Tensor) -> Gaussians:
    """The rows `kept` ([M] int64 or [N] bool), grown to cover what the others covered.

    Each of the others hands its opacity times area (the product of its two longer axes) to the nearest survivor, which
    grows by the same factor, at most 4: half of it (in logarithms) as opacity as far as that goes, the rest as size.
    Measured against leaving the survivors as they are: docs/pruning.md.
    """
    from scipy.spatial import cKDTree

    rest = torch.ones(len(gaussians), dtype=torch.bool, device=gaussians.device)
    rest[kept] = False
    left, gone = gaussians.select(kept), gaussians.select(rest)
    if len(left) == 0 or len(gone) == 0:
        return left
    tree = cKDTree(left.means.detach().double().cpu().numpy())
    _, nearest = tree.query(gone.means.detach().double().cpu().numpy(), workers=-1)
    own = _mass(left)
    taken = torch.zeros_like(own).index_add_(0, torch.from_numpy(nearest).to(own.device), _mass(gone))
    factor = ((own + taken) / own.clamp(min=torch.finfo(own.dtype).tiny)).clamp(max=_MOST)

    before = left.opacities().double()
    after = torch.maximum(before, (before * factor.sqrt()).clamp(max=_OPAQUE))
    size = (factor * before / after).sqrt()
    return replace(
        left,
        # Those that are as opaque as can be keep their logit: that of a rounded opacity may be infinite.
        logit_opacities=torch.where(after > before, torch.logit(after), left.logit_opacities.double()).to(
            left.dtype
        ),
        log_scales=left.log_scales + size.log()[:, None].to(left.dtype),
    )


def _mass(gaussians: Gaussians) -> Tensor:
    """[N] float64, opacity times the product of the two longer axes."""
    axes = gaussians.log_scales.double().sort(dim=1).values[:, 1:].sum(1).exp()
    return gaussians.opacities().double() * axes
