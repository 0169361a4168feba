"""Small scenes for the tests of the rasterizers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from splat.core import Camera, Gaussians
from splat.core.heads import SavedHead


def camera(width: int = 20, height: int = 14, distance: float = 4.0, dtype=torch.float64) -> Camera:
    """Looks at the origin from `distance`, a little turned, its principal point off the middle."""
    axis = torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64)
    x, y, z = axis
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = turn
    pose[2, 3] = distance
    return Camera(width, height, 1.1 * width, 1.2 * width, 0.45 * width, 0.55 * height, pose.to(dtype))


def soft(count: int = 7, seed: int = 0, antialiased: bool = False) -> Gaussians:
    """Wide, half-transparent Gaussians around the origin, float64: for `camera()`'s pictures.

    Smooth everywhere: each covers every pixel with an alpha between the two cut-offs, all together leave
    more light than the pixel's end needs, the colours stay above zero and the centres in the frustum.
    """
    g = torch.Generator().manual_seed(seed)
    f64 = {"generator": g, "dtype": torch.float64}
    return Gaussians(
        means=0.4 * torch.randn(count, 3, **f64),
        quats=torch.randn(count, 4, **f64),
        log_scales=0.1 + 0.15 * torch.randn(count, 3, **f64),
        logit_opacities=-0.8 + 0.4 * torch.randn(count, **f64),
        sh=torch.cat([torch.rand(count, 1, 3, **f64), 0.05 * torch.randn(count, 15, 3, **f64)], 1),
        antialiased=antialiased,
    )


def mixed(count: int = 60, seed: int = 0, antialiased: bool = False) -> Gaussians:
    """Random Gaussians, float64, with every cut-off at work for `camera()`'s pictures.

    Opaque ones end pixels and reach the largest alpha, small ones leave pixels out, some colours are
    clamped at zero and some centres lie beyond the widened frustum. Piecewise smooth: the pieces meet
    where a value equals a threshold, which no pixel of a given seed does exactly.
    """
    g = torch.Generator().manual_seed(seed)
    f64 = {"generator": g, "dtype": torch.float64}
    means = torch.randn(count, 3, **f64)
    means[: count // 8] *= 3.5
    log_scales = -1.1 + 0.6 * torch.randn(count, 3, **f64)
    log_scales[: count // 8] += 1.0
    return Gaussians(
        means=means,
        quats=torch.randn(count, 4, **f64),
        log_scales=log_scales,
        logit_opacities=2.5 * torch.randn(count, **f64) + 1.0,
        sh=torch.cat([torch.randn(count, 1, 3, **f64), 0.2 * torch.randn(count, 15, 3, **f64)], 1),
        antialiased=antialiased,
    )


def headed(scene: Gaussians, width: int = 3, weights: int = 50) -> tuple[Gaussians, dict[str, Any]]:
    """The scene and metadata with a head called glare, which reads `width` values of a Gaussian."""
    g = torch.Generator().manual_seed(7)
    extras = {"shine": torch.randn(len(scene), width, generator=g)} if width else {}
    options = {"size": "small", "gain": 0.5, "features": width}
    head = SavedHead(options, torch.randn(weights, generator=g), "shine" if width else None)
    return replace(scene, extras=extras), {"heads": {"glare": head}}
