"""Rotations spread evenly, as a codebook that need not be stored."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

# Positive root of x^4 = x + 4; with sqrt(2) it spreads the spirals evenly (Alexa 2022).
_PSI = 1.533751168755204288118041


@functools.lru_cache(maxsize=4)
def rotations(size: int) -> Tensor:
    """[about size / 4, 4] float32 unit quaternions wxyz, |w| the largest component and w > 0.

    Super-Fibonacci spirals (Alexa, CVPR 2022) of `size` rotations, less those that another one among them stands
    for: turned over about an axis, by half a turn, a covariance is the same.
    """
    place = torch.arange(size, dtype=torch.float64) + 0.5
    near, far = (place / size).sqrt(), (1 - place / size).sqrt()
    first, second = 2 * math.pi * place / math.sqrt(2), 2 * math.pi * place / _PSI
    quats = torch.stack([near * first.sin(), near * first.cos(), far * second.sin(), far * second.cos()], 1)
    kept = quats[quats[:, 0].abs() >= quats[:, 1:].abs().amax(1)]
    return torch.where(kept[:, :1] < 0, -kept, kept).float()
