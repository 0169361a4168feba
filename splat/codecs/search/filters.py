"""Filters: each gives a smaller scene, and leaves the one that it was given as it is."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.core.sh import MAX_DEGREE, coefficients

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def crop(gaussians: Gaussians, low: Tensor, high: Tensor) -> Gaussians:
    """The Gaussians whose centres lie in the box from `low` to `high`, [3] each, borders included.

    Compared in float64, so that the box of a far-away scene may be given in its own coordinates less the
    offset without rounding.

    Raises:
        UsageError: the box is empty or not finite.
    """
    if not bool(torch.isfinite(torch.cat([low, high])).all()) or bool((low > high).any()):
        raise UsageError(
            f"crop: the box from {low.tolist()} to {high.tolist()} is empty: each of the first three numbers "
            "must be at most the corresponding one of the last three"
        )
    centres = gaussians.means.double()
    return gaussians.select(((centres >= low.to(centres)) & (centres <= high.to(centres))).all(1))


def limit_opacity(gaussians: Gaussians, least: float) -> Gaussians:
    """The Gaussians whose opacity is at least `least`, in [0, 1]; UsageError for other limits."""
    if not 0 <= least <= 1:
        raise UsageError(f"least opacity {least:g}: opacities lie between 0 and 1")
    return gaussians.select(gaussians.opacities() >= least)


def limit_scale(gaussians: Gaussians, largest: float) -> Gaussians:
    """The Gaussians whose longest axis has a standard deviation of at most `largest` world units."""
    if not largest > 0:
        raise UsageError(f"largest scale {largest:g}: it must be above 0")
    return gaussians.select(gaussians.log_scales.amax(1) <= math.log(largest))


def lower_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """The scene with harmonics up to `degree` at most; those that are not stored are not made up."""
    if not 0 <= degree <= MAX_DEGREE:
        raise UsageError(f"SH degree {degree}: it must lie between 0 and {MAX_DEGREE}")
    if degree >= gaussians.sh_degree:
        return gaussians
    return replace(gaussians, sh=gaussians.sh[:, : coefficients(degree)].contiguous())


def parse_size(text: str) -> int:
    """Bytes of a size such as 5MB, 800kB, 1.5 GiB or 4096; UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS or float(match[1]) <= 0:
        raise UsageError(f"size {text!r}: expected a number above 0 and a unit, such as 5MB, 800kB or 1.5MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
