"""Other quaternions and scales of the same Gaussian: axes in another order, axes turned over.

There are 24 for every covariance. Codebooks need not tell them apart: the axes are sorted once, and
quaternions are kept in the form nearest to their codeword, where straight-through gradients fit them best.
Moments of the optimizer go along: the first as the gradient does, of the second the diagonal.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from splat.core.rotations import matrix_to_quat, quat_multiply
from splat.training.context import Context

# q times 1, i, j, k: where each component comes from, and its sign.
_PLACES = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_SIGNS = ((1, 1, 1, 1), (-1, 1, 1, -1), (-1, -1, 1, 1), (-1, 1, -1, 1))


def sort_axes(ctx: Context) -> None:
    """The largest scale first, in every Gaussian of the main field."""
    g, optimizer = ctx.gaussians, ctx.optimizer
    order = g.log_scales.argsort(dim=1, descending=True, stable=True)
    every = list(permutations(range(3)))
    which = torch.zeros(len(g), dtype=torch.int64, device=g.device)
    for number, permutation in enumerate(every):
        which[(order == order.new_tensor(permutation)).all(1)] = number
    product = _products(every).to(g.means)[which]  # [N, 4, 4] from the quaternion to that of the sorted axes
    for name, linear in (("log_scales", None), ("quats", product)):
        for moment, power in zip(optimizer.moments[name], (1, 2), strict=True):
            moment.copy_(_mapped(moment, linear, order, power))
        value = _mapped(getattr(g, name), linear, order, 1)
        ctx.edits.replace(name, None, value, zero_moments=False)


def align(ctx: Context, words: Tensor) -> None:
    """The form of every quaternion that is nearest to `words` [N, 4]."""
    quats = ctx.gaussians.quats
    places = torch.tensor(_PLACES, device=quats.device)
    signs = torch.tensor(_SIGNS, device=quats.device, dtype=quats.dtype)
    products = torch.stack([(quats[:, p] * s * words).sum(1) for p, s in zip(places, signs, strict=True)], 1)
    best = products.abs().argmax(1)
    sign = torch.where(products.gather(1, best[:, None]) < 0, -1.0, 1.0) * signs[best]
    changed = ((best != 0) | (sign[:, 0] < 0)).nonzero()[:, 0]
    if changed.numel() == 0:
        return
    place, sign = places[best[changed]], sign[changed]
    first, second = ctx.optimizer.moments["quats"]
    first[changed] = first[changed].gather(1, place) * sign
    second[changed] = second[changed].gather(1, place)
    ctx.edits.replace("quats", changed, quats[changed].gather(1, place) * sign, zero_moments=False)


def _mapped(values: Tensor, linear: Tensor | None, order: Tensor, power: int) -> Tensor:
    if linear is None:
        return values.gather(1, order)
    return (linear.pow(power) @ values[:, :, None])[:, :, 0]


def _products(orders: list[tuple[int, ...]]) -> Tensor:
    """[6, 4, 4] matrices M with M q the quaternion whose axes are those of q in each order."""
    found = []
    for order in orders:
        axes = torch.eye(3)[:, list(order)]
        axes[:, 2] *= torch.linalg.det(axes).sign()
        quat = matrix_to_quat(axes)
        found.append(quat_multiply(torch.eye(4), quat.expand(4, 4)).T)
    return torch.stack(found)
