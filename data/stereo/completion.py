"""What stereo leaves open: depths that no other view confirms, and what lies beyond the pictures' edges.

Of three photographs a good part of every new view is shown by one of them alone, and some of it by none. There a scene
is better begun with a guess than with nothing. Inverse depth is continued as a thin plate under tension (Terzopoulos
1983), bent freely where the photograph has an edge (weights exp(-k |grad I|)): a plane in space is exactly linear in
inverse depth over the pixels, so that walls and floors go on as planes. Beyond the edges of a picture its colours are
continued too, smoothly, on a coarse grid. Where cameras stand around something on a floor, the floor bounds all
guesses, what lies above its far end is far, what lies beyond a picture is background, and nothing hangs where cameras
stand. Nothing of it is measured: training moves what the photographs see, and the rest stays a blurred guess in place
of a black hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from splat.core import Camera
from splat.data.scene import Points
from splat.data.stereo.backdrop import backdrop
from splat.data.stereo.floor import Floor, on_floor, paved
from splat.data.stereo.views import DepthMap, StereoView, cells, world_points

_PIXELS = 40_000  # of the grid on which a view is completed, at most: the time grows faster than they do
_TINY = 1e-9  # keeps the equations regular where nothing is known
_SINKING = 0.003  # weight with which the guess above a floor's far end is drawn to what is farthest
_OUTLIERS = 0.01  # share of known depths at either end that does not bound the others


@dataclass(frozen=True)
class CompletionOptions:
    """How depth is continued."""

    tension: float = 0.3
    """Weight of a change of inverse depth from pixel to pixel, beside one of its bending."""
    edge: float = 80.0
    """Edges of the photograph (mean |difference| of colours in [0, 1]) count exp(-edge x difference)."""
    margin: float = 0.5
    """How far beyond its edges a picture is continued, as a share of its size."""
    coarse: int = 20
    """Points along the longer side of a picture with which what lies beyond it is sown."""
    directions: int = 1_000
    """Points on the sphere behind everything; 0 for none."""
    slack: float = 0.03
    """A guess that hangs before another view's depth by more than this share is left out."""


@dataclass(frozen=True)
class Completion:
    """Guessed points.

    Attributes:
        inside: of pixels without depth.
        beyond: of what lies beyond the edges of the pictures, few and far apart.
        behind: of a sphere behind everything.
        below: of a floor where nothing else lies on it.
    """

    inside: Points
    beyond: Points
    behind: Points
    below: Points


def completed(
    view: StereoView,
    depth: DepthMap,
    options: CompletionOptions,
    floor: Floor | None = None,
    farthest: float = 0.0,
) -> Tensor:
    """[H, W] float32 depth at every pixel; as it is where it is known. At least one pixel must be.

    Args:
        floor: guesses do not lie behind it.
        farthest: depth of what is farthest in all views.
    """
    known = depth.depth > 0
    height, width = known.shape
    shrink = min(1.0, (_PIXELS / (height * width)) ** 0.5)
    size = (max(3, round(height * shrink)), max(3, round(width * shrink)))
    share = functional.adaptive_avg_pool2d(known.float()[None], size)[0]
    inverse = torch.where(known, 1 / depth.depth.clamp_min(1e-30), 0.0)
    mean = functional.adaptive_avg_pool2d(inverse[None], size)[0] / share.clamp_min(_TINY)
    image = functional.adaptive_avg_pool2d(view.image.permute(2, 0, 1), size).permute(1, 2, 0)
    low, high = _bounds(depth)
    if floor is not None:
        low = min(low, 1 / farthest)
        rising = (share == 0) & (1 / floor.depth(view.camera.resized(size[1], size[0]), share.device) < low)
        mean, share = torch.where(rising, low, mean), torch.where(rising, _SINKING, share)
    plate = _plate(_array(mean), _array(share), _array(image), 1.0, options.tension, options.edge)
    full = functional.interpolate(
        torch.from_numpy(plate)[None, None].to(inverse), (height, width), mode="bilinear", align_corners=False
    )[0, 0]
    guess = 1 / full.clamp(low * 0.7, high)
    if floor is not None:
        guess = torch.minimum(guess, floor.depth(view.camera, guess.device))
    return torch.where(known, depth.depth, guess)


def complete(
    views: Sequence[StereoView],
    depths: Sequence[DepthMap],
    points: Points | None = None,
    options: CompletionOptions | None = None,
    floor: Floor | None = None,
) -> Completion:
    """Points for the pixels without depth, and for what lies beyond the pictures, as far as no view contradicts.

    A pixel without depth is left out where the mask says so. Beyond its own edges a view says nothing of what others
    show. Views without any depth say nothing.

    Args:
        depths: confirmed ones, as `reconstruct` gives them.
        points: with tracks whose frames are numbered as `views`: depths of single pixels of those that see them, on
            which a view without a partner for stereo rests alone.
        floor: what the cameras stand around, if they do.
    """
    options = options or CompletionOptions()
    if points is not None and points.tracks is not None:
        depths = [
            anchored(view, depth, points, i)
            for i, (view, depth) in enumerate(zip(views, depths, strict=True))
        ]
    if floor is not None:
        pairs = list(zip(views, depths, strict=True))
        depths = [
            _filled(depth, on_floor(view, pairs[:i] + pairs[i + 1 :], floor))
            for i, (view, depth) in enumerate(pairs)
        ]
    told = [i for i, depth in enumerate(depths) if bool((depth.depth > 0).any())]
    farthest = max((1 / _bounds(depths[i])[0] for i in told), default=0.0)
    full = {i: completed(views[i], depths[i], options, floor, farthest) for i in told}
    inside, beyond = [_NOTHING], [_NOTHING]
    for i in told:
        view, others = views[i], [j for j in told if j != i]
        free = depths[i].depth == 0
        if view.mask is not None:
            free &= view.mask
        places = world_points(view.camera, full[i])[free]
        known = [(views[j].camera, depths[j].depth) for j in others]
        inside.append(_kept(places, view.image[free], ~_hanging(places, known, 1 - options.slack, floor)))
        places, colours = _beyond(view, full[i], options)
        if floor is not None:
            places = floor.background(view.camera, places, farthest)
        everywhere = [(views[j].camera, full[j]) for j in others]
        beyond.append(_kept(places, colours, ~_hanging(places, everywhere, 1 + options.slack, floor)))
    behind = _points([_NOTHING])
    if told and options.directions:
        plane = None if floor is None else floor.plane
        behind = backdrop([views[i] for i in told], [full[i] for i in told], options.directions, plane)
    below = [_NOTHING]
    if floor is not None:
        below += [paved([views[i] for i in told], [full[i] for i in told], floor)]
    return Completion(_points(inside), _points(beyond), behind, _points(below))


def anchored(view: StereoView, depth: DepthMap, points: Points, number: int) -> DepthMap:
    """The depth, with that of the points that view `number` sees where it has none."""
    assert points.tracks is not None
    mine = points.tracks.points()[points.tracks.frames == number]
    known = depth.depth
    _, place, z = cells(view.camera, points.xyz[mine].double())
    nearest = torch.full_like(known.flatten(), torch.inf)
    nearest.scatter_reduce_(0, place.to(known.device), z.to(known), "amin")
    nearest = torch.where(nearest.isinf(), 0, nearest).reshape(known.shape)
    return _filled(depth, nearest)


def _filled(depth: DepthMap, other: Tensor) -> DepthMap:
    """The depth, and the other where it has none."""
    return DepthMap(torch.where(depth.depth > 0, depth.depth, other), depth.confidence)


_NOTHING = torch.zeros(0, 3), torch.zeros(0, 3)


def _kept(places: Tensor, colours: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    return places[kept].cpu(), colours[kept].cpu()


def _points(parts: Sequence[tuple[Tensor, Tensor]]) -> Points:
    xyz, rgb = (torch.cat(values) for values in zip(*parts, strict=True))
    return Points(xyz.double(), (rgb * 255 + 0.5).clamp(0, 255).to(torch.uint8))


def _hanging(
    places: Tensor, seen: Sequence[tuple[Camera, Tensor]], slack: float, floor: Floor | None
) -> Tensor:
    """[P] bool: nearer than `slack` times the depth that one of the cameras has there, or where cameras stand."""
    found = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    for camera, depth in seen:
        shown, place, z = cells(camera, places)
        there = depth.flatten()[place]
        found[shown] |= (there > 0) & (z < slack * there)
    return found if floor is None else found | floor.free(places)


def _beyond(view: StereoView, depth: Tensor, options: CompletionOptions) -> tuple[Tensor, Tensor]:
    """[P, 3] places and [P, 3] colours beyond the edges of a view."""
    height, width = depth.shape
    step = max(height, width) / options.coarse
    rows, columns = max(3, round(height / step)), max(3, round(width / step))
    down, right = round(options.margin * rows), round(options.margin * columns)
    camera = view.camera.resized(columns, rows)
    counts = torch.ones_like(depth) if view.mask is None else view.mask.to(depth)
    values = torch.cat([counts[None], counts / depth[None], counts * view.image.permute(2, 0, 1)])
    inside = functional.adaptive_avg_pool2d(values, (rows, columns))
    inside = torch.cat([inside[:1], inside[1:] / inside[:1].clamp_min(_TINY)])
    known, *canvas = _array(functional.pad(inside, (right, right, down, down)))
    flat = np.zeros((*known.shape, 1))
    inverse = _plate(canvas[0], known, flat, 1.0, options.tension, 0.0)
    colours = np.stack([_plate(channel, known, flat, 0.0, 1.0, 0.0) for channel in canvas[1:]], -1)
    bounds = canvas[0][known > 0]
    z = torch.from_numpy(1 / inverse.clip(0.8 * bounds.min(), bounds.max())).to(depth)
    x = (torch.arange(z.shape[1], device=z.device) - right + 0.5 - camera.cx) / camera.fx
    y = (torch.arange(z.shape[0], device=z.device) - down + 0.5 - camera.cy) / camera.fy
    local = torch.stack([x * z, y[:, None] * z, z], -1)
    pose = camera.camera_to_world.to(z)
    outside = torch.ones(z.shape, dtype=torch.bool, device=z.device)
    outside[down : down + rows, right : right + columns] = False
    places = (local @ pose[:3, :3].T + pose[:3, 3])[outside]
    return places, torch.from_numpy(colours).to(z)[outside].clamp(0, 1)


def _plate(
    values: NDArray[np.float64],
    weight: NDArray[np.float64],
    image: NDArray[np.float64],
    bending: float,
    tension: float,
    edge: float,
) -> NDArray[np.float64]:
    """[H, W] that minimises weight x (its difference from `values`)^2 + bending + tension, both less across edges.

    Args:
        values, weight: [H, W]; a weight of 0 where nothing is known.
        image: [H, W, C] whose edges count.
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    scale = np.average(np.abs(values), weights=weight) or 1.0
    number = np.arange(values.size).reshape(values.shape)
    across = np.exp(-edge * np.abs(np.diff(image, axis=1)).mean(-1))
    down = np.exp(-edge * np.abs(np.diff(image, axis=0)).mean(-1))

    def energy(cells: Sequence[Any], factors: Sequence[float], weights: NDArray[np.float64]) -> Any:
        """Of the weighted squares of sums of `factors` times the values of `cells`."""
        count = weights.size
        columns = np.stack([cell.ravel() for cell in cells], 1).ravel()
        rows = np.repeat(np.arange(count), len(cells))
        terms = sparse.csr_matrix((np.tile(factors, count), (rows, columns)), shape=(count, values.size))
        return terms.T @ sparse.diags(weights.ravel()) @ terms

    system = sparse.diags(weight.ravel()) + _TINY * sparse.identity(values.size)
    if bending:
        corner = np.minimum(
            np.minimum(across[1:], across[:-1]), np.minimum(down[:, 1:], down[:, :-1])
        )  # of the four pixels of a square
        straight = (number[:, :-2], number[:, 1:-1], number[:, 2:]), np.minimum(across[:, 1:], across[:, :-1])
        upright = (number[:-2], number[1:-1], number[2:]), np.minimum(down[1:], down[:-1])
        square = (number[1:, 1:], number[1:, :-1], number[:-1, 1:], number[:-1, :-1])
        for cells, weights in (straight, upright):
            system = system + bending * energy(cells, (1, -2, 1), weights)
        system = system + 2 * bending * energy(square, (1, -1, -1, 1), corner)
    system = system + tension * energy((number[:, :-1], number[:, 1:]), (-1, 1), across)
    system = system + tension * energy((number[:-1], number[1:]), (-1, 1), down)
    found = spsolve(system.tocsc(), weight.ravel() * values.ravel() / scale)
    return found.reshape(values.shape) * scale


def _bounds(depth: DepthMap) -> tuple[float, float]:
    """Least and greatest inverse depth that is known, but for a few outliers."""
    inverse = 1 / depth.depth[depth.depth > 0]
    ends = inverse.new_tensor([_OUTLIERS, 1 - _OUTLIERS])
    low, high = torch.quantile(inverse[:: len(inverse) // 1_000_000 + 1], ends).tolist()
    return low, high


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
