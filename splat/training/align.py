"""Where held-out cameras belong, after training has moved the training cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from splat.core import Camera
from splat.training.losses import photometric
from splat.training.optim import adam_step
from splat.training.perview import moved

_STEPS = 100
_RATE = 1e-3


def similarity(source: Tensor, target: Tensor) -> tuple[float, Tensor, Tensor]:
    """Scale, rotation [3, 3] and translation [3] that bring `source` [N, 3] nearest to `target` [N, 3].

    Umeyama 1991. Points that do not fix a rotation (fewer than three, or on a line) give the translation
    alone.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = torch.linalg.svd(b.T @ a)
    if len(a) < 3 or s[1] < 1e-9 * s[0].clamp_min(1e-30):
        return 1.0, torch.eye(3, dtype=a.dtype), (target - source).mean(0)
    sign = torch.ones(3, dtype=a.dtype)
    sign[2] = torch.sign(torch.linalg.det(u @ vt))
    rotation = u @ (sign[:, None] * vt)
    scale = float((s * sign).sum() / a.square().sum())
    return scale, rotation, target.mean(0) - scale * rotation @ source.mean(0)


def aligned(camera: Camera, before: Sequence[Camera], after: Sequence[Camera]) -> Camera:
    """`camera` carried along by the similarity between the cameras `before` and `after`."""
    source = torch.stack([c.position.double() for c in before])
    target = torch.stack([c.position.double() for c in after])
    scale, rotation, translation = similarity(source, target)
    turned = camera.world_to_camera.double().clone()
    position = scale * rotation @ camera.position.double() + translation
    turned[:3, :3] = turned[:3, :3] @ rotation.T
    turned[:3, 3] = -turned[:3, :3] @ position
    return camera.with_pose(turned.to(camera.world_to_camera.dtype))


@torch.enable_grad()
def fitted(
    camera: Camera, draw: Callable[[Camera], Tensor], target: Tensor, mask: Tensor | None, extent: float
) -> Camera:
    """`camera` moved to where `draw` (differentiable in the pose) shows `target` [H, W, 3] uint8 best."""
    xi = torch.zeros(6, device=camera.world_to_camera.device)
    first, second = torch.zeros_like(xi), torch.zeros_like(xi)
    best, lowest = camera, float("inf")
    for step in range(_STEPS):
        leaf = xi.clone().requires_grad_()
        candidate = moved(camera, leaf, extent)
        loss = photometric(draw(candidate), target, mask)
        if loss.item() < lowest:
            lowest, best = loss.item(), candidate.with_pose(candidate.world_to_camera.detach())
        (gradient,) = torch.autograd.grad(loss, leaf)
        adam_step(xi, gradient, first, second, _RATE * 0.05 ** (step / _STEPS), step + 1)
    return best
