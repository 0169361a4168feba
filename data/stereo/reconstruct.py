"""Multi-view stereo from posed pictures: depth maps, what confirms them, and the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from splat.data.scene import Points
from splat.data.stereo import planes
from splat.data.stereo.consistency import Agreement, agreements
from splat.data.stereo.fusion import fuse, without_outliers
from splat.data.stereo.refine import Comparison, RefineOptions, refine
from splat.data.stereo.sweep import SweepOptions, majority, sweep
from splat.data.stereo.views import DepthMap, StereoView, grey

_OFF = 4.0  # planes by which the coarse depth may be off: its own half, and what its larger pixels blur


@dataclass(frozen=True)
class StereoOptions:
    """How depth is searched, confirmed and fused."""

    sweep: SweepOptions = field(default_factory=SweepOptions)
    refine: RefineOptions = field(default_factory=RefineOptions)
    sources: int = 4
    """Other views that each view is matched against, at most."""
    pixels: float = 1.0
    """How far a point may land from where it came when it goes to another view and back, pixels."""
    relative: float = 0.02
    """How far the depths of two views may differ, as a share."""
    confirmations: int = 1
    """Other views that must confirm a depth."""
    confidence: float = 0.5
    """Least correlation of the pictures."""
    support: float = 0.4
    """Share of the 5x5 pixels around it that must lie at nearly the same depth."""
    deviations: float = 2.0
    """Points farther from their neighbours than the mean distance by so many deviations are left out."""


@dataclass(frozen=True)
class Reconstruction:
    """What stereo finds.

    Attributes:
        depths: for each view the depths that the others confirm.
        found: for each view a depth everywhere, right or wrong.
        points: the fused cloud in world coordinates, coloured, with tracks; frames are numbered as the views.
        partners: for each view those that it was matched against, best first; none where nothing overlaps.
    """

    depths: list[DepthMap]
    found: list[DepthMap]
    points: Points
    partners: list[list[int]]


class Keeper(Protocol):
    """Keeps the depths of views as they are found, so that a run that was stopped goes on."""

    def load(self, number: int) -> DepthMap | None:
        """What an earlier run on the same views has found for one; None where nothing."""
        ...

    def save(self, number: int, depth: DepthMap) -> None: ...


def reconstruct(
    views: Sequence[StereoView],
    points: Tensor | None = None,
    options: StereoOptions | None = None,
    keeper: Keeper | None = None,
) -> Reconstruction:
    """Depth maps of all views and the cloud on which they agree.

    Args:
        views: at least 2, on one device.
        points: [P, 3] known points of the scene, which bound the depths that are tried. Without them a first run
            on pictures of half the size tells the bounds.
        keeper: is asked before each view, and told after it.
    """
    options = options or StereoOptions()
    if points is None:
        first = _reconstruct([_halved(view) for view in views], None, options, None)
        points = first.points.xyz if len(first.points) else None
    return _reconstruct(views, points, options, keeper)


def _reconstruct(
    views: Sequence[StereoView], points: Tensor | None, options: StereoOptions, keeper: Keeper | None
) -> Reconstruction:
    cameras = [view.camera for view in views]
    partners, found = [], []
    for index, view in enumerate(views):
        known = None if points is None else planes.point_range(view.camera, points)
        near, far = known or planes.geometric_range(view.camera, [c for c in cameras if c is not view.camera])
        partners.append(planes.sources(index, cameras, (near, far), options.sources))
        depth = None if keeper is None else keeper.load(index)
        if depth is None:
            depth = _depth(view, [views[number] for number in partners[-1]], near, far, options)
            if keeper is not None:
                keeper.save(index, depth)
        found.append(depth)
    agreed = agreements(views, found, partners, pixels=options.pixels, relative=options.relative)
    depths = [confirmed(d, list(a.values()), options) for d, a in zip(found, agreed, strict=True)]
    cloud = fuse(views, depths, agreed)
    return Reconstruction(depths, found, without_outliers(cloud, options.deviations), partners)


def confirmed(depth: DepthMap, said: Sequence[Agreement], options: StereoOptions) -> DepthMap:
    """The depths that enough other views confirm, that the pictures agree on and that do not stand alone."""
    votes = sum((each.agrees.long() for each in said), torch.zeros_like(depth.depth, dtype=torch.long))
    kept = (votes >= options.confirmations) & (depth.confidence >= options.confidence)
    kept &= supported(depth.depth * kept, options.relative) >= options.support
    return DepthMap(depth.depth * kept, depth.confidence * kept)


def supported(depth: Tensor, relative: float) -> Tensor:
    """[H, W] share of the 5x5 pixels around each whose depth differs by less than `relative` of its own; windows end
    at the border, and pixels without depth do not count as like any."""
    height, width = depth.shape
    around = functional.pad(depth[None, None], (2, 2, 2, 2), value=-torch.inf)
    like = torch.zeros_like(depth)
    for row in range(5):
        for column in range(5):
            other = around[0, 0, row : row + height, column : column + width]
            like += (depth > 0) & ((other - depth).abs() < relative * depth)
    inside = functional.avg_pool2d(torch.ones_like(depth)[None], 5, 1, 2)[0]
    return like / (25 * inside)


def _depth(
    view: StereoView, others: Sequence[StereoView], near: float, far: float, options: StereoOptions
) -> DepthMap:
    """A sweep at half the size says where to begin; slanted windows at full size refine it."""
    height, width = view.image.shape[:2]
    if not others:
        nothing = torch.zeros(height, width, device=view.image.device)
        return DepthMap(nothing, nothing)
    small, small_others = _halved(view), [_halved(other) for other in others]
    inverse = planes.inverse_depths(
        small.camera,
        [other.camera for other in small_others],
        near,
        far,
        step=options.sweep.step,
        most=options.sweep.planes,
    )
    coarse = sweep(small, small_others, inverse, options.sweep).depth
    start = torch.where(coarse > 0, 1 / coarse.clamp_min(1e-30), 1 / far)
    start = functional.interpolate(start[None, None], (height, width), mode="nearest")[0, 0]
    compare = Comparison(view, others, grey([view, *others]), options.refine, majority(len(others)))
    spacing = _OFF * float(inverse[1] - inverse[0])
    found, cost = refine(view, compare, start, (1 / far, 1 / near), spacing, options.refine)
    inside = torch.ones_like(cost, dtype=torch.bool) if view.mask is None else view.mask
    return DepthMap(inside / found.inverse, inside * (1 - 2 * cost).clamp(0, 1))


def _halved(view: StereoView) -> StereoView:
    """The picture at half the size; a pixel of the mask counts where all of it does."""
    size = (max(1, view.image.shape[0] // 2), max(1, view.image.shape[1] // 2))
    image = functional.adaptive_avg_pool2d(view.image.permute(2, 0, 1), size).permute(1, 2, 0)
    mask = view.mask
    if mask is not None:
        mask = functional.adaptive_avg_pool2d(mask.float()[None], size)[0] == 1
    return StereoView(view.camera.resized(size[1], size[0]), image, mask)
