"""Filters of `splat export`, and what the rows that are left need with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.core.sh import MAX_DEGREE, coefficients

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def inside(gaussians: Gaussians, low: Tensor, high: Tensor) -> Tensor:
    """[N] bool: whose centres lie in the box from `low` to `high`, [3] each, borders included.

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
    return ((centres >= low.to(centres)) & (centres <= high.to(centres))).all(1)


def opaque(gaussians: Gaussians, least: float) -> Tensor:
    """[N] bool: whose opacity is at least `least`, in [0, 1]; UsageError for other limits."""
    if not 0 <= least <= 1:
        raise UsageError(f"least opacity {least:g}: opacities lie between 0 and 1")
    return gaussians.opacities() >= least


def small(gaussians: Gaussians, largest: float) -> Tensor:
    """[N] bool: whose longest axis has a standard deviation of at most `largest` world units."""
    if not largest > 0:
        raise UsageError(f"largest scale {largest:g}: it must be above 0")
    return gaussians.log_scales.amax(1) <= math.log(largest)


def lower_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """The scene with harmonics up to `degree` at most; those that are not stored are not made up."""
    if not 0 <= degree <= MAX_DEGREE:
        raise UsageError(f"SH degree {degree}: it must lie between 0 and {MAX_DEGREE}")
    if degree >= gaussians.sh_degree:
        return gaussians
    return replace(gaussians, sh=gaussians.sh[:, : coefficients(degree)].contiguous())


def select_codebooks(codebooks: dict[str, Any], rows: Tensor, count: int) -> dict[str, Any]:
    """What training learned for each format, for the Gaussians at `rows` of `count`.

    The codebooks stay; of the tensors called labels, which have one entry a Gaussian, those at `rows` do.
    """

    def selected(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: selected(key, inner) for key, inner in value.items()}
        if name.endswith("labels") and isinstance(value, Tensor) and len(value) == count:
            return value[rows.to(value.device)]
        return value

    return selected("", codebooks)


def kept_metadata(
    metadata: Mapping[str, Any], rows: Tensor, count: int, *, as_learned: bool
) -> tuple[dict[str, Any], list[str]]:
    """(metadata, notes) of the Gaussians at `rows` ([M] int64) of `count`; `as_learned`: the values that training gave
    codebooks to are still its own."""
    learned = metadata.get("codebooks")
    if not learned:
        return dict(metadata), []
    if not as_learned:
        note = "the codebooks learned in training do not fit the changed scene: new ones are made"
        return {**metadata, "codebooks": None}, [note]
    return {**metadata, "codebooks": select_codebooks(learned, rows, count)}, []


def parse_size(text: str) -> int:
    """Bytes of a size such as 5MB, 800kB, 1.5 GiB or 4096; UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS or float(match[1]) <= 0:
        raise UsageError(f"size {text!r}: expected a number above 0 and a unit, such as 5MB, 800kB or 1.5MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
