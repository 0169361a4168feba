"""What can be asked of a render, and what comes of it: the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

NEEDS = frozenset({"depth", "median_depth", "ids", "means2d_grad", "absgrad", "radii", "contribution"})


@dataclass
class RenderOptions:
    """What to draw and how.

    Attributes:
        background: [3] colour behind the scene, or None for black.
        sh_degree: highest degree of the harmonics to use; None uses all that are stored.
        features: [N, F] further channels to blend like colours (no background), or None.
        needs: outputs beyond image and alpha, of NEEDS.
        backend: "auto" (by the tensors' device), "reference", "cpu", or another registered name.
        deferred: where the backward pass leaves the image-space gradients instead of computing the
            parameters' gradients (see splat.raster.native.Deferred); None for ordinary autograd.
    """

    background: Tensor | None = None
    sh_degree: int | None = None
    features: Tensor | None = None
    needs: frozenset[str] = frozenset()
    backend: str = "auto"
    deferred: Any | None = None


@dataclass
class RenderOutput:
    """What was drawn. Everything that was not asked for is None.

    Attributes:
        image: [H, W, 3] colours over the background, not clamped.
        alpha: [H, W] 1 - transmittance.
        depth: [H, W] expected camera z, sum(w z) / sum(w); 0 where nothing was drawn.
        median_depth: [H, W] camera z of the splat at which the transmittance first falls to 0.5; 0 where
            it does not. Its gradient goes to that splat's depth.
        features: [H, W, F] blended features.
        ids: [H, W] int32 index of the median splat, -1 where there is none.
        radii: [N] int32 extent in pixels of each Gaussian's drawn ellipse (larger axis); 0 where not drawn.
        contribution: [N] sum over the pixels of the blending weight w = alpha T.
        means2d_grad: [N, 2] filled by the backward pass: dLoss / d(projected centre), per pixel.
        means2d_absgrad: [N, 2] the same with absolute values summed over the pixels (AbsGS).
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor | None = None
    median_depth: Tensor | None = None
    features: Tensor | None = None
    ids: Tensor | None = None
    radii: Tensor | None = None
    contribution: Tensor | None = None
    means2d_grad: Tensor | None = None
    means2d_absgrad: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)
