"""Where autograd begins: leaves, and gradients that pass a transform as if it were none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.training.context import Field


def straight_through(stored: Gaussians, shown: Gaussians) -> Gaussians:
    """The values of `shown`, whose gradients go to `stored` as they are."""
    passed = {
        name: _StraightThrough.apply(getattr(stored, name), getattr(shown, name)) for name in PARAMETERS
    }
    return replace(shown, **passed)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stored: Tensor, shown: Tensor) -> Tensor:
        return shown.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def require_grad(field: Field, flag: bool) -> None:
    """Make leaves of what the field optimises, or ordinary tensors without gradients again."""
    for _, value in field.optimizer.trained():
        value.grad = None
        value.requires_grad_(flag)
