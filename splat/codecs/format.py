"""What a file format is to the rest of Splat, and what its reader and writer share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.checks import finite

Metadata = dict[str, Any]

# Finite stand-ins for what some writers store as infinities: an opacity of exactly 1 or 0 (float32's sigmoid
# of 16 is 1 - 1.2e-7) and a scale of exactly 0 (1e-13 world units).
_LARGEST_LOGIT = 16.0
_SMALLEST_LOG_SCALE = -30.0


@dataclass
class Decoded:
    """What a reader found, before the values are checked.

    Attributes:
        gaussians: float32, on the CPU.
        metadata: `version` (str), `comments` (list of lines), and, where the file states one, `offset`
            ([x, y, z] to add to the centres for the world frame).
        notes: one line for each thing that the user may want to know: what was ignored or replaced.
    """

    gaussians: Gaussians
    metadata: Metadata
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: what messages and `splat info` call it.
        extensions: with the dot, lower case; the first is the usual one.
        magic: the bytes that such a file begins with, or None where only the extension tells.
        read: path -> Decoded; DataError where the file is damaged.
        write: (gaussians, path, metadata) -> notes on what the format does not hold; None for formats that
            are only read.
        max_error: name of a parameter -> largest absolute difference between a value written and read back.
    """

    name: str
    extensions: tuple[str, ...]
    magic: bytes | None
    read: Callable[[Path], Decoded]
    write: Callable[[Gaussians, Path, Metadata], list[str]] | None = None
    max_error: Callable[[Gaussians], dict[str, float]] | None = None


def settle_infinities(gaussians: Gaussians) -> tuple[Gaussians, list[str]]:
    """Infinite logits and scales of zero, which have a meaning, as finite values; a note for each kind."""
    notes = []

    def settle(values: Tensor, bad: Tensor, low: float, high: float, what: str) -> Tensor:
        count = int(bad.sum())
        if count == 0:
            return values
        notes.append(what.format(count=count))
        return torch.where(bad, values.clamp(low, high), values)

    logits, scales = gaussians.logit_opacities, gaussians.log_scales
    logits = settle(
        logits,
        torch.isinf(logits),
        -_LARGEST_LOGIT,
        _LARGEST_LOGIT,
        f"opacities of exactly 0 or 1, read as logits of magnitude {_LARGEST_LOGIT:g}: {{count}}",
    )
    scales = settle(
        scales,
        scales == -torch.inf,
        _SMALLEST_LOG_SCALE,
        torch.inf,
        f"scales of exactly 0, read as exp({_SMALLEST_LOG_SCALE:g}): {{count}}",
    )
    return replace(gaussians, logit_opacities=logits, log_scales=scales), notes


def suspicions(gaussians: Gaussians) -> list[str]:
    """What is probably not meant, a line each; nothing here is an error."""
    found = []
    good = finite(gaussians)
    bad = int((~good).sum())
    if bad:
        first = int((~good).int().argmax())
        found.append(f"Gaussians with NaN or infinite values: {bad}; the first is Gaussian {first}")
    scene = gaussians.select(good)
    if len(scene) == 0:
        return [*found, "there is no Gaussian to draw"]
    logits, log_scales = scene.logit_opacities, scene.log_scales
    if float(logits.min()) >= 0 and float(logits.max()) <= 1 and float(logits.min()) < float(logits.max()):
        found.append("all opacity values lie between 0 and 1: activated values where logits belong")
    if float(log_scales.min()) >= 0:
        found.append("no scale is smaller than 1: activated values where logarithms belong, or a huge scene")
    distances = (scene.means - scene.means.median(0).values).norm(dim=1)
    radius = float(distances.kthvalue(max(1, int(0.99 * len(scene)))).values)
    giants = int((log_scales.amax(1).exp() > radius).sum()) if len(scene) >= 100 else 0
    if giants:
        found.append(
            f"Gaussians larger than the radius that holds 99% of the centres ({radius:.3g}): {giants}"
        )
    lost = int((scene.quats.norm(dim=1) < 1e-12).sum())
    if lost:
        found.append(f"rotations that are zero quaternions, drawn unrotated: {lost}")
    return found
