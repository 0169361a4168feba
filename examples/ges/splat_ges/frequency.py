"""Which pixels of a photograph hold detail of a given fineness."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def edge_mask(image: Tensor, coarseness: float, threshold: float) -> Tensor:
    """[H, W] bool: where the difference between an image and its blur is large.

    Args:
        image: [H, W, 3] in [0, 1].
        coarseness: 0 (the finest detail) to 1; the blur's standard deviation is 0.5 + 10 times this, in
            pixels. (A blur much narrower than a pixel changes nothing, and its mask would be empty.)
        threshold: share of the largest difference in the image. An image without any detail has an empty mask.
    """
    grey = image.mean(2)
    response = (grey - blur(grey, 0.5 + 10 * coarseness)).abs()
    # Below an eighth of an 8-bit step there is only rounding.
    return response > max(threshold * float(response.max()), 1 / 2048)


def blur(image: Tensor, sigma: float) -> Tensor:
    """[H, W] `image` ([H, W]) under a Gaussian of `sigma` pixels, its border repeated."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = window / window.sum()
    padded = functional.pad(image[None, None], (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded, window[None, None, None, :])
    return functional.conv2d(rows, window[None, None, :, None])[0, 0]
