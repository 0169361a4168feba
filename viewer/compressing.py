"""What a smaller scene would cost: pruning by a score, fewer harmonics, a codec's bytes and loss."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat import codecs
from splat.codecs import search
from splat.core import Camera, Gaussians
from splat.raster import RenderOptions, RenderOutput, render
from splat.viewer.jobs import CalledOff

VIEWS = 24  # that a score is gathered from, at most
PIXELS = 320 * 240  # of each

GoOn = Callable[[], bool]


@dataclass(frozen=True)
class Plan:
    """How to make a scene smaller.

    Attributes:
        share: of the Gaussians that is left out, 0 to below 1; `method` (of codecs.search) says which.
        sh_degree: highest degree of the harmonics that is kept.
        extension: the format, by the end of a file's name.
        options: write options of the format, by name.
    """

    share: float
    method: str
    sh_degree: int
    extension: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Attributes:
        written: what was written: pruned, of lower degree, before the format rounds it.
        gaussians: what is read back from the file.
        dropped: [N] bool, the Gaussians of the scene that were left out.
        bytes: of the file.
        notes: what the format does not hold.
        metadata: what the format knows of what was written.
    """

    plan: Plan
    written: Gaussians
    gaussians: Gaussians
    dropped: Tensor
    bytes: int
    notes: list[str]
    metadata: Mapping[str, Any]


def ranked(
    gaussians: Gaussians, method: str, cameras: Sequence[Camera], go_on: GoOn = lambda: True
) -> Tensor:
    """[N] int64 Gaussians from the most to the least wanted, by small pictures of views spread over `cameras`.

    Raises:
        CalledOff: `go_on` said no.
        UsageError: the method needs cameras, and there are none.
    """
    count = min(VIEWS, len(cameras))
    chosen = [_small(cameras[i * len(cameras) // count]) for i in range(count)]

    def draw(scene: Gaussians, camera: Camera, needs: frozenset[str]) -> RenderOutput:
        if not go_on():
            raise CalledOff
        with torch.no_grad():
            return render(scene, camera.to(scene.device), RenderOptions(needs=needs))

    return search.ranking(method, gaussians, search.Viewpoints(chosen, draw))


def dropped(order: Tensor, share: float) -> Tensor:
    """[N] bool: the `share` of the Gaussians that `order` ([N], of `ranked`) wants least; one always stays."""
    count = len(order)
    found = torch.zeros(count, dtype=torch.bool)
    found[order[max(1, count - int(share * count)) :]] = True
    return found


def through_codec(
    gaussians: Gaussians, extension: str, options: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[Gaussians, int, list[str]]:
    """(what is read back, bytes, notes) of the scene written in a format; nothing stays on the disk."""
    with tempfile.TemporaryDirectory(prefix="splat-compress-") as folder:
        path = Path(folder) / f"scene{extension}"
        notes = codecs.encode(gaussians.to("cpu"), path, dict(metadata), options)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        return codecs.decode(path)[0].to(gaussians.device), size, notes


def carry_out(
    gaussians: Gaussians, order: Tensor, plan: Plan, metadata: Mapping[str, Any] | None = None
) -> Outcome:
    """Does what the plan says; `order` [N] is that of `ranked` by the plan's method, `metadata` of the scene.

    Raises:
        SplatError: the format cannot hold the scene.
    """
    out = dropped(order, plan.share)
    smaller = search.survivors(gaussians, ~out.to(gaussians.device))
    smaller = search.lower_degree(smaller, plan.sh_degree)
    rows, whole = (~out).nonzero()[:, 0], smaller.sh_degree == gaussians.sh_degree
    known, changed = search.kept_metadata(metadata or {}, rows, len(out), as_learned=whole)
    back, size, notes = through_codec(smaller, plan.extension, plan.options, known)
    return Outcome(plan, smaller, back, out, size, changed + notes, known)


@torch.no_grad()
def likeness(
    reference: Gaussians,
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: tuple[float, float, float],
    go_on: GoOn = lambda: True,
) -> float:
    """Mean PSNR, dB, at most 100, of pictures of a scene against the same pictures of its `reference`.

    Raises:
        CalledOff: `go_on` said no.
    """
    behind = torch.tensor(background, device=reference.device, dtype=reference.dtype)
    scores = []
    for camera in cameras:
        if not go_on():
            raise CalledOff
        view = _small(camera).to(reference.device)
        pair = [
            render(g, view, RenderOptions(background=behind)).image.clamp(0, 1)
            for g in (reference, gaussians)
        ]
        error = float((pair[0] - pair[1]).square().mean())
        scores.append(100.0 if error < 1e-10 else -10 * math.log10(error))
    return sum(scores) / len(scores)


def _small(camera: Camera) -> Camera:
    shrink = max(1.0, (camera.width * camera.height / PIXELS) ** 0.5)
    return camera.resized(max(1, round(camera.width / shrink)), max(1, round(camera.height / shrink)))
