"""What a file format is to the rest of Splat, and what its reader and writer share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.heads import SavedHead

# What travels with a scene; every key is optional.
#   generator  str: the program that made it
#   comments   list of lines
#   offset     [x, y, z] floats to add to the centres for the world frame (core.world.place)
#   up_axis    the direction that is up in the scene's own frame: "x", "-x", "y", "-y", "z" or "-z"
#   view       dict: where to look from at first: position, target, up ([x, y, z]), fov (degrees across, down)
#   background [r, g, b] in 0..1: what was behind the scene in training
#   codebooks  dict: what the vq strategy learned; a format that can use it does, the others ignore it
#   heads      name of a strategy -> core.heads.SavedHead: what the scene's pictures go through; the values that
#              they read are among the extras of the Gaussians
# A reader adds `version` (str); `decode` adds `format` and `notes`.
Metadata = dict[str, Any]

UP_AXES = ("x", "-x", "y", "-y", "z", "-z")

# Finite stand-ins for what some writers store as infinities: an opacity of exactly 1 or 0 (float32's sigmoid
# of 16 is 1 - 1.2e-7) and a scale of exactly 0 (1e-13 world units).
_LARGEST_LOGIT = 16.0
_SMALLEST_LOG_SCALE = -30.0


@dataclass
class Decoded:
    """What a reader found, before the values are checked.

    Attributes:
        gaussians: float32, on the CPU.
        metadata: `version` (str), `comments` (list of lines), and whatever else of Metadata the file states.
        notes: one line for each thing that the user may want to know: what was ignored or replaced.
    """

    gaussians: Gaussians
    metadata: Metadata
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NoOptions:
    """The options of a format that has none."""


Write = Callable[[Gaussians, Path, Metadata, Any], list[str]]
MaxError = Callable[[Gaussians, Any], dict[str, float]]
Order = Callable[[Gaussians, Metadata, Any], Tensor]


def by_scene(order: Callable[[Gaussians], Tensor]) -> Order:
    """An order that follows from the scene alone."""
    return lambda gaussians, metadata, options: order(gaussians)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: what messages and `splat info` call it.
        extensions: ends of file names, lower case; the first is the usual one. Of several formats the one
            with the longest fitting end writes: `.compressed.ply` before `.ply`. `meta.json` is an end, too.
        sniff: (path, head) -> whether the content is of this format. `head` is the file's first bytes
            (HEAD of them, if it is as long), empty for a folder. Cheap, and false for foreign content.
        read: path -> Decoded; DataError where the file is damaged. `path` is a folder only where sniff says
            yes to one.
        write: (gaussians, path, metadata, options) -> notes on what was changed (clamped, say); None for
            formats that are only read. The parameters are finite float32 on the CPU, with contiguous rows; what
            `losses` names is simply left out.
        options: frozen dataclass of the write options, with defaults; its __post_init__ raises UsageError for
            values that do not fit. Its docstring and fields are the help.
        max_error: (gaussians, options) -> the bound that the format's bits imply between a scene and what is
            read back of it, by the names of `differences`.
        order: (gaussians, metadata, options) -> [N] int64, the rows in the order in which `write` writes them;
            None: as they are.
        sh_degree: the highest that it holds.
        holds: which of antialiased, offset, up_axis, view, background and heads it holds.
        parts: path -> bytes of each part of a file (splat.codecs.parts has what is told without it).
        ladder: values of options that trade quality for size, from the finest to the coarsest, for the search
            of a target.
    """

    name: str
    extensions: tuple[str, ...]
    sniff: Callable[[Path, bytes], bool]
    read: Callable[[Path], Decoded]
    write: Write | None = None
    options: type = NoOptions
    max_error: MaxError | None = None
    order: Order | None = None
    sh_degree: int = 3
    holds: frozenset[str] = frozenset()
    parts: Callable[[Path], dict[str, int]] | None = None
    ladder: tuple[Mapping[str, Any], ...] = ({},)

    def losses(self, gaussians: Gaussians, metadata: Metadata) -> list[str]:
        """What a file of this format will lack, a line each; known before anything is written."""
        lost = []
        if gaussians.sh_degree > self.sh_degree:
            kept = f"degree {self.sh_degree}" if self.sh_degree else "degree 0 (no view dependence)"
            lost.append(
                f"a {self.name} file holds colours up to SH {kept}: bands above it, up to degree "
                f"{gaussians.sh_degree}, are left out"
            )
        if gaussians.antialiased and "antialiased" not in self.holds:
            lost.append(
                f"a {self.name} file has no antialiasing flag: viewers will draw the scene in classic form"
            )
        if metadata.get("offset") is not None and "offset" not in self.holds:
            offset = ", ".join(f"{float(value):.9g}" for value in metadata["offset"])
            lost.append(f"a {self.name} file does not hold the offset ({offset}): its frame is the local one")
        if metadata.get("up_axis") is not None and "up_axis" not in self.holds:
            lost.append(f"a {self.name} file does not say which axis is up ({metadata['up_axis']})")
        heads: dict[str, SavedHead] = metadata.get("heads") or {}
        if "heads" not in self.holds:
            lost += [
                f"a {self.name} file does not hold the head {name}: its pictures will lack what that repairs"
                for name in heads
            ]
        else:
            lost += [
                f"the head {name} is left out: the scene lacks {head.features}, which it reads"
                for name, head in heads.items()
                if head.features is not None and head.features not in gaussians.extras
            ]
        others = set(gaussians.extras) - {head.features for head in heads.values()}
        lost += [f"a {self.name} file does not hold {name}: left out" for name in sorted(others)]
        return lost


HEAD = 4096


def differences(a: Gaussians, b: Gaussians) -> dict[str, float]:
    """The largest difference between two scenes of the same rows, of each kind of value.

    Returns:
        means (world units), log_scales, opacities (after the sigmoid), quats (components of unit quaternions, the
        signs made to agree; zero ones stand for no rotation), sh0 (band 0) and shN (the bands that both have; 0
        where there are none).
    """

    def largest(x: Tensor, y: Tensor) -> float:
        return float((x.double() - y.double()).abs().amax()) if x.numel() else 0.0

    def rotation(scene: Gaussians) -> Tensor:
        upright = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64, device=scene.device)
        quats = torch.where(scene.quats.any(1, keepdim=True), scene.quats.double(), upright)
        return torch.nn.functional.normalize(quats, dim=1)

    p, q = rotation(a), rotation(b)
    q = torch.where((p * q).sum(1, keepdim=True) < 0, -q, q)
    bands = min(a.sh.shape[1], b.sh.shape[1])
    return {
        "means": largest(a.means, b.means),
        "quats": largest(p, q),
        "log_scales": largest(a.log_scales, b.log_scales),
        "opacities": largest(a.logit_opacities.double().sigmoid(), b.logit_opacities.double().sigmoid()),
        "sh0": largest(a.sh[:, :1], b.sh[:, :1]),
        "shN": largest(a.sh[:, 1:bands], b.sh[:, 1:bands]),
    }


def settle_infinities(gaussians: Gaussians) -> list[str]:
    """Replaces infinite logits and scales of zero, which have a meaning, by finite values; a note for each kind."""
    notes = []
    logits, scales = gaussians.logit_opacities.numpy(), gaussians.log_scales.numpy()
    endless, nothing = np.isinf(logits), scales == -np.inf
    if endless.any():
        logits[endless] = np.copysign(_LARGEST_LOGIT, logits[endless])
        notes.append(
            f"opacities of exactly 0 or 1, read as logits of magnitude {_LARGEST_LOGIT:g}: {int(endless.sum())}"
        )
    if nothing.any():
        scales[nothing] = _SMALLEST_LOG_SCALE
        notes.append(f"scales of exactly 0, read as exp({_SMALLEST_LOG_SCALE:g}): {int(nothing.sum())}")
    return notes


# Centres by which the extent of a scene is judged: enough for a percentile to within a tenth of one.
_SAMPLE = 10_000


def _radius(means: Tensor) -> float:
    """About the median, the radius that holds 99% of the centres, or of a regular sample where they are many."""
    some = means[:: max(1, len(means) // _SAMPLE)].double().numpy()
    distances = np.linalg.norm(some - np.median(some, 0), axis=1)
    place = max(1, int(0.99 * len(some))) - 1
    return float(np.partition(distances, place)[place])


def suspicions(scene: Gaussians) -> list[str]:
    """What is probably not meant in a scene of finite values, a line each; nothing here is an error."""
    if len(scene) == 0:
        return ["there is no Gaussian to draw"]
    found = []
    logits, log_scales = scene.logit_opacities, scene.log_scales
    if float(logits.min()) >= 0 and float(logits.max()) <= 1 and float(logits.min()) < float(logits.max()):
        found.append("all opacity values lie between 0 and 1: activated values where logits belong")
    if float(log_scales.min()) >= 0:
        found.append("no scale is smaller than 1: activated values where logarithms belong, or a huge scene")
    radius = _radius(scene.means)
    giants = int((log_scales.amax(1).exp() > radius).sum()) if len(scene) >= 100 else 0
    if giants:
        found.append(
            f"Gaussians larger than the radius that holds 99% of the centres ({radius:.3g}): {giants}"
        )
    lost = int((scene.quats.abs().amax(1) < 1e-12).sum())
    if lost:
        found.append(f"rotations that are zero quaternions, drawn unrotated: {lost}")
    return found
