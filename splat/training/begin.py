"""Where the first points come from: the kinds of initialisation, and which one a dataset gets.

Every kind uses the training views and what they observe, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from splat.core import Camera, DataError
from splat.data import Dataset, Points, random_points
from splat.data.hull import visual_hull
from splat.data.matching import matched_points
from splat.data.points import FEW_VIEWS
from splat.data.resample import area_resize
from splat.data.stereo import (
    Completion,
    CompletionOptions,
    DepthMap,
    StereoOptions,
    StereoView,
    complete,
    reconstruct,
)
from splat.data.stereo.floor import Floor, all_around, floor_of
from splat.training.config import InitConfig

# Stereo works on pictures that have at most so many pixels, all views and those that they are matched against
# together, and at least so many: below, its windows blur the whole picture.
_PIXELS = {"cpu": 1_200_000, "cuda": 30_000_000}
_LEAST_PIXELS = 5_000
_DENSE = 0.02  # points for each pixel: several times what structure from motion leaves

FEWEST = 100
"""With fewer points a run does not get going: random ones are better. (Lund from 13 points: 7.2 dB, from random ones
12.7; from 65 points 8.5, from random ones 14.4.)"""

_BEYOND = 0.1  # of the Gaussians there is room for, at most, lie beyond what the photographs show

_FEW = 5  # views, up to which a guess is better than nothing wherever they look

_MATCHED = 1_600  # pixels along the longer side of the photographs in which features are sought


@dataclass(frozen=True)
class Request:
    """What a kind of initialisation may use.

    Attributes:
        most: number of points that the run has room for.
        device: where heavy work may be done.
        generator: of the run, CPU.
    """

    dataset: Dataset
    init: InitConfig
    most: int
    device: torch.device
    generator: torch.Generator


class Kind(Protocol):
    """A way to come by points; the automatic choice goes on where it gives fewer than `fewest`."""

    name: str
    fewest: int

    def hindrance(self, dataset: Dataset) -> str | None:
        """Why this dataset cannot begin so, as the end of a sentence; None where it can. Cheap."""
        ...

    def reason(self, dataset: Dataset) -> str | None:
        """Why the automatic choice falls on this kind where nothing hinders it; None to leave it out."""
        ...

    def points(self, request: Request) -> Points:
        """Points in the dataset's recentred coordinates; few or none where the views do not allow more."""
        ...


class FromPoints:
    name = "points"
    fewest = FEWEST

    def hindrance(self, dataset: Dataset) -> str | None:
        return None if dataset.points is not None and len(dataset.points) else "has no points to begin with"

    def reason(self, dataset: Dataset) -> str | None:
        return "the dataset has points"

    def points(self, request: Request) -> Points:
        assert request.dataset.points is not None
        return request.dataset.points


class FromStereo:
    name = "stereo"
    fewest = FEWEST

    def hindrance(self, dataset: Dataset) -> str | None:
        return _too_small(dataset, "stereo")

    def reason(self, dataset: Dataset) -> str | None:
        count = len(dataset.train)
        if count > FEW_VIEWS:
            return None
        camera = dataset.camera(dataset.train[0])
        pixels = count * camera.width * camera.height
        if dataset.points is not None and len(dataset.points) > _DENSE * pixels:
            return None  # of a depth sensor, or of stereo
        return f"{count} views are few"

    def points(self, request: Request) -> Points:
        """The fused cloud, the points that are known already, and a guess at what neither tells."""
        dataset, known = request.dataset, request.dataset.points
        views = stereo_views(dataset, request.device)
        found = reconstruct(views, None if known is None else known.xyz, StereoOptions())
        if len(found.points) < self.fewest:
            return found.points
        parts = [found.points, *([] if known is None else [known])]
        if not request.init.complete:
            return _joined(parts)
        cameras = [view.camera for view in views]
        floor = floor_of(torch.cat([part.xyz for part in parts]), cameras)
        guess = _guessed(dataset, views, found.depths, floor)
        if floor is None and len(views) > _FEW and all_around(cameras):
            nothing = Points(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.uint8))
            guess = replace(guess, inside=nothing, beyond=nothing)
        # Thinned here where there is no room for all: what lies beyond the pictures is sown thin already.
        beyond = _thinned(guess.beyond, round(_BEYOND * request.most), request.generator)
        behind = _thinned(guess.behind, round(_BEYOND * request.most), request.generator)
        below = _thinned(guess.below, round(_BEYOND * request.most), request.generator)
        room = request.most - len(beyond) - len(behind) - len(below)
        rest = _thinned(_joined([*parts, guess.inside]), room, request.generator)
        return _joined([rest, beyond, behind, below])


def _joined(parts: Sequence[Points]) -> Points:
    """Places and colours of all."""
    return Points(torch.cat([part.xyz for part in parts]), torch.cat([part.rgb for part in parts]))


def _thinned(points: Points, most: int, generator: torch.Generator) -> Points:
    """At most so many of the points, drawn at random, in their order."""
    if len(points) <= most:
        return points
    kept = torch.randperm(len(points), generator=generator)[:most].sort().values
    return Points(points.xyz[kept], points.rgb[kept])


def _guessed(
    dataset: Dataset, views: Sequence[StereoView], depths: Sequence[DepthMap], floor: Floor | None
) -> Completion:
    """What the views show without depth, and what lies beyond them; of outlined objects only what is inside."""
    shown = [dataset.silhouette(index) for index in dataset.train]
    points = _numbered(dataset)
    if all(outline is None for outline in shown):
        return complete(views, depths, points, floor=floor)
    outlined = []
    for view, depth, outline in zip(views, depths, shown, strict=True):
        mask = torch.ones_like(depth.depth, dtype=torch.bool) if view.mask is None else view.mask
        if outline is not None:
            mask = mask & _all_of(outline, view.camera).to(mask.device)
        outlined.append(replace(view, mask=mask))
    return complete(outlined, depths, points, CompletionOptions(margin=0.0, directions=0))


def _numbered(dataset: Dataset) -> Points | None:
    """The dataset's points with what the training views see of them, frames numbered in their order."""
    points = dataset.points
    if points is None or points.tracks is None:
        return None
    place = torch.full((len(dataset.scene.frames),), -1)
    place[torch.tensor(dataset.train)] = torch.arange(len(dataset.train))
    tracks = points.tracks
    return replace(points, tracks=replace(tracks, frames=place[tracks.frames.long()]))


def _too_small(dataset: Dataset, purpose: str) -> str | None:
    camera = dataset.camera(dataset.train[0])
    if camera.width * camera.height >= _LEAST_PIXELS:
        return None
    return f"has pictures of {camera.width}x{camera.height} pixels, too small for {purpose}"


class FromHull:
    name = "hull"
    fewest = FEWEST

    def hindrance(self, dataset: Dataset) -> str | None:
        shown = dataset.silhouette(dataset.train[0])
        return "has no transparency or masks that show the outline of an object" if shown is None else None

    def reason(self, dataset: Dataset) -> str | None:
        if len(dataset.train) > FEW_VIEWS:
            return None
        return f"{len(dataset.train)} views are few and show the outline of an object"

    def points(self, request: Request) -> Points:
        dataset = request.dataset
        outlined = [(i, s) for i in dataset.train if (s := dataset.silhouette(i)) is not None]
        bounds = None
        if dataset.scene.bounds is not None:
            half = torch.full((3,), dataset.scene.bounds, dtype=torch.float64)
            bounds = (-half - dataset.offset, half - dataset.offset)
        return visual_hull(
            [dataset.camera(index) for index, _ in outlined],
            [dataset.photo(index).image for index, _ in outlined],
            [silhouette for _, silhouette in outlined],
            bounds,
        )


class FromMatches:
    name = "matches"
    fewest = FEWEST

    def hindrance(self, dataset: Dataset) -> str | None:
        return _too_small(dataset, "features")

    def reason(self, dataset: Dataset) -> str | None:
        count = len(dataset.train)
        return f"{count} views are few and have no points" if count <= FEW_VIEWS else None

    def points(self, request: Request) -> Points:
        views = [request.dataset.large(index, _MATCHED) for index in request.dataset.train]
        return matched_points([camera for camera, _ in views], [image.numpy() for _, image in views])


class FromChance:
    name = "random"
    fewest = 0

    def hindrance(self, dataset: Dataset) -> str | None:
        return None

    def reason(self, dataset: Dataset) -> str | None:
        return "nothing else gives enough"

    def points(self, request: Request) -> Points:
        return random_points(request.dataset, min(request.init.count, request.most), request.generator)


# In the order in which the automatic choice asks them.
KINDS: tuple[Kind, ...] = (FromStereo(), FromPoints(), FromHull(), FromMatches(), FromChance())


def begin(request: Request, say: Callable[[str], None]) -> Points:
    """The points to begin with, of the kind that `init.source` names or that suits the dataset best.

    Args:
        say: takes a line about which kind it is and why.

    Raises:
        DataError: the kind that was asked for is not possible with this dataset.
    """
    dataset, source = request.dataset, request.init.source
    if source != "auto":
        kind = next(kind for kind in KINDS if kind.name == source)
        hindrance = kind.hindrance(dataset)
        points = None if hindrance else kind.points(request)
        if points is None or not len(points):
            cause = hindrance or f"gives no points by {source}"
            raise DataError(f"{dataset.scene.root}: {cause}; use --init.source random")
        say(f"begins with {source}, as asked: {len(points):,} points")
        return points
    for kind in KINDS:
        reason = kind.reason(dataset)
        if reason is None or kind.hindrance(dataset):
            continue
        points = kind.points(request)
        if len(points) >= kind.fewest:
            say(f"begins with {kind.name}, as {reason}: {len(points):,} points")
            return points
        say(f"{kind.name}: only {len(points):,} points, too few to begin with")
    raise AssertionError("the last kind always gives points")


def stereo_views(dataset: Dataset, device: torch.device) -> list[StereoView]:
    """The training views at the size at which stereo works on them, at most that of training."""
    count = len(dataset.train)
    matched = count * min(StereoOptions().sources, max(count - 1, 1))
    budget = max(_PIXELS["cuda" if device.type == "cuda" else "cpu"] / matched, 4 * _LEAST_PIXELS)
    views = []
    for index in dataset.train:
        camera, photo = dataset.camera(index), dataset.photo(index)
        shrink = min(1.0, math.sqrt(budget / (camera.width * camera.height)))
        width, height = (max(1, round(size * shrink)) for size in (camera.width, camera.height))
        resized = camera.resized(width, height)
        mask = None if photo.mask is None else _all_of(photo.mask != 0, resized).to(device)
        image = area_resize(photo.image, width, height) / 255
        views.append(StereoView(resized, image.to(device), mask))
    return views


def _all_of(mask: Tensor, camera: Camera) -> Tensor:
    """[H, W] bool: pixels of the camera's picture that `mask`, of another size, keeps in whole."""
    return area_resize(mask[..., None], camera.width, camera.height)[..., 0] == 1
