"""What a change of a parameter costs in squared error, measured by random signs.

A change d of a parameter p that has nothing to do with the residuals raises the squared error by |dI/dp|^2 d^2, the
diagonal of the Gauss-Newton matrix. For random signs z, one a value of the picture, the gradient of sum(z I) has the
mean square |dI/dp|^2 (Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007): one render and one backward pass give a
sample for every parameter of every Gaussian.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.core.rotations import quat_multiply
from splat.raster import RenderOptions, render
from splat.training.context import Context
from splat.training.views import fixed_background

# Weights below this share of their median are raised to it: some Gaussians are seen by no view.
_LEAST = 1e-3


# What is measured: turns are by a radian about each axis of the Gaussian, all else is a mean of components. A
# component of any band of harmonics costs as much as one of the color: the squares of a band's basis functions have
# the same mean in every direction.
COLUMNS = ("means", "scale", "opacity", "color")
TURNS = slice(len(COLUMNS), len(COLUMNS) + 3)
WIDTH = TURNS.stop


def sample(g: Gaussians, ctx: Context) -> tuple[Tensor, Tensor]:
    """[N, WIDTH] rise of the mean squared error of this step's view per squared change of each column of `g`, which is
    the scene as it is drawn; and [K, K] that by the product of changes of two harmonics, summed over the Gaussians."""
    generator = torch.Generator().manual_seed(ctx.config.seed * 1_000_003 + ctx.step)
    leaves = {name: getattr(g, name).detach().requires_grad_(True) for name in PARAMETERS}
    behind = torch.tensor(fixed_background(ctx.config.background), device=g.device)
    with torch.enable_grad():
        degree = min(g.sh_degree, ctx.step // ctx.config.sh_interval)
        options = RenderOptions(behind, sh_degree=degree, backend=ctx.config.backend)
        image = render(replace(g, **leaves, extras={}), ctx.camera, options).image
    signs = torch.randint(0, 2, image.shape, generator=generator).to(image) * 2 - 1
    values = image.numel()
    if ctx.mask is not None:
        seen = (ctx.mask > 0)[..., None]
        signs, values = signs * seen, max(1, 3 * int(seen.sum()))
    image.backward(signs)
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    found = [
        grads["means"].square().mean(1),
        grads["log_scales"].square().mean(1),
        grads["logit_opacities"].square(),
        grads["sh"][:, 0].square().mean(1),
        *_turned(leaves["quats"].detach(), grads["quats"]).square().unbind(1),
    ]
    colors = grads["sh"].permute(0, 2, 1).flatten(0, 1)
    return torch.stack(found, 1) / values, colors.T @ colors / values


def _turned(quats: Tensor, grads: Tensor) -> Tensor:
    """[N, 3] derivative by the angle of a turn about each axis of the Gaussian: dq/dt = q e / 2."""
    axes = torch.eye(4, device=quats.device, dtype=quats.dtype)[1:]
    return torch.stack([(quat_multiply(quats, axis.expand_as(quats)) * grads).sum(1) / 2 for axis in axes], 1)


def weights(measured: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Column -> [N] weights from the mean of samples, none of them zero; `turns` is [N, 3], `seen` [K, K]."""
    raised = torch.stack([_raised(column) for column in measured.unbind(1)], 1)
    return {name: raised[:, i] for i, name in enumerate(COLUMNS)} | {"turns": raised[:, TURNS], "seen": seen}


def _raised(weight: Tensor) -> Tensor:
    if weight.numel() == 0:
        return weight
    median = weight.double().median()
    return weight.clamp(min=max(float(median) * _LEAST, torch.finfo(torch.float32).tiny))
