"""From depth maps that agree to one coloured cloud."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from splat.data.scene import Points, Tracks
from splat.data.stereo.consistency import Agreement
from splat.data.stereo.views import DepthMap, StereoView, world_points

_NEIGHBOURS = 20  # of the statistical filter


def fuse(
    views: Sequence[StereoView], depths: Sequence[DepthMap], agreed: Sequence[dict[int, Agreement]]
) -> Points:
    """One point for each pixel of known depth, unless a view before has that place already.

    Its position is the mean of what the views that agree say, its colour the mean of their pixels.

    Args:
        depths: after `confirmed`.
        agreed: for each view what the others say.

    Returns:
        Points with tracks, frames numbered as `views`.
    """
    claimed = [torch.zeros_like(depth.depth, dtype=torch.bool) for depth in depths]
    xyz: list[Tensor] = []
    rgb: list[Tensor] = []
    tracks: list[Tensor] = []
    for number, (view, depth) in enumerate(zip(views, depths, strict=True)):
        chosen = (depth.depth > 0) & ~claimed[number]
        place = world_points(view.camera, depth.depth)[chosen]
        colour = view.image[chosen].clone()
        count = torch.ones(len(place), 1, device=place.device)
        seen = torch.zeros(len(place), len(views), dtype=torch.bool, device=place.device)
        seen[:, number] = True
        for other, said in agreed[number].items():
            agrees = said.agrees[chosen]
            column, row = said.pixels[chosen][agrees].unbind(-1)
            place[agrees] += said.points[chosen][agrees]
            colour[agrees] += views[other].image[row, column]
            count[agrees] += 1
            seen[agrees, other] = True
            claimed[other][row, column] = True
        xyz.append(place / count)
        rgb.append(colour / count)
        tracks.append(seen)
    seen = torch.cat(tracks).cpu()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), seen.sum(1).cumsum(0)])
    frames = seen.nonzero()[:, 1]
    colours = (torch.cat(rgb) * 255 + 0.5).clamp(0, 255).to(torch.uint8).cpu()
    return Points(torch.cat(xyz).double().cpu(), colours, tracks=Tracks(offsets, frames))


def without_outliers(points: Points, deviations: float) -> Points:
    """The points whose mean distance to their 20 nearest neighbours is within so many standard deviations of the
    mean of all (Rusu et al. 2008)."""
    from scipy.spatial import cKDTree

    if len(points) <= _NEIGHBOURS:
        return points
    xyz = points.xyz.numpy()
    distance = cKDTree(xyz).query(xyz, k=_NEIGHBOURS + 1, workers=1)[0][:, 1:].mean(1)
    return chosen(points, torch.from_numpy(distance <= distance.mean() + deviations * np.std(distance)))


def chosen(points: Points, rows: Tensor) -> Points:
    """The points of `rows` [P] bool, with their tracks."""
    tracks = points.tracks
    if tracks is not None:
        counts = (tracks.offsets[1:] - tracks.offsets[:-1])[rows]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        tracks = Tracks(offsets, tracks.frames[rows[tracks.points()]])
    error = None if points.error is None else points.error[rows]
    return Points(points.xyz[rows], points.rgb[rows], error, tracks)
