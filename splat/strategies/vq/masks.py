"""Which Gaussians the file needs: a mask that is learned, against the price of their bits.

As in Lee et al. 2024 and RDO-Gaussian (Wang et al. 2024) a Gaussian's opacity is multiplied by a mask that is 1 or 0,
the sign of a value m, and the gradient goes straight through to its sigmoid. The gradient by the mask is that by the
opacity times the opacity; its mean is the optimizer's first moment, so that no further pass is needed. The price of the
Gaussian's bits pulls the mask down, and where it has become negative the Gaussian is taken away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splat.training.context import Context

MASK = "vq_mask"
_BEGIN = 1.0
_SPEED = 3.0  # where only the price pulls, m falls by so much until the last assignment
_DECAY = 0.999  # of the mean square of the gradient, as in Adam


def track(ctx: Context) -> None:
    """[N, 3] for the main field: m, the mean square of its gradient, and the bits of the Gaussian."""
    ctx.edits.track(
        MASK, lambda g: torch.tensor([_BEGIN, 0.0, 0.0], device=g.device).repeat(len(g), 1), "copy"
    )


def learn(ctx: Context, price: float, penalty: float, taken: int, steps: int) -> None:
    """One step of every mask.

    Args:
        price: rise of the loss that a bit of one Gaussian is worth.
        penalty: weight of the mean opacity in the loss, which the first moment has in it.
        taken: steps of the masks, this one among them, of `steps`.
    """
    g = ctx.gaussians
    opacity = g.opacities()
    # By the logit it is o (1 - o) of that by the opacity.
    moment = ctx.optimizer.moments["logit_opacities"][0] - penalty / len(g) * opacity * (1 - opacity)
    value, square, bits = ctx.edits.state[MASK].unbind(1)
    share = torch.sigmoid(value)
    gradient = (moment / (1 - opacity).clamp(min=1e-3) + price * bits) * share * (1 - share)
    square.lerp_(gradient.square(), 1 - _DECAY)
    scale = (square / (1 - _DECAY**taken)).sqrt() + torch.finfo(torch.float32).tiny
    value.sub_(_SPEED / steps * gradient / scale)


def values(ctx: Context) -> Tensor:
    """[N] m: below 0 is what may go."""
    return ctx.edits.state[MASK][:, 0]


def set_bits(ctx: Context, bits: Tensor) -> None:
    """What each Gaussian takes in the file, [N]."""
    ctx.edits.state[MASK][:, 2] = bits


def bits(ctx: Context) -> Tensor:
    """[N] what was set."""
    return ctx.edits.state[MASK][:, 2]
