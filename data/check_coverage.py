"""How photographs cover the scene: parts that nothing connects, directions that nobody took, views too far apart."""

from __future__ import annotations

import math

import numpy as np

from splat.data.check_context import Context
from splat.data.problems import some

_SHARED = 15  # points that tie two photographs together: what COLMAP asks of two (min_num_matches)
# A point seen from directions within this angle has a depth thirty times (1 / tan) less certain than its place across
# the view; COLMAP's mapper gives up points under 1.5 degrees.
_ANGLE = 2.0
_SHARE = 0.5
_GAP = 60.0  # degrees: two cameras so far apart share next to nothing of a surface between them
_UNUSUAL = 2.5  # times the usual step: where all steps are wide there is no gap, but too few views
_CLOSED = 180.0  # degrees of the circle from which on photographs seem to go round something
_STEP = 25.0  # degrees: features are found again over 20 to 30 (Mikolajczyk and Schmid 2005)
_POLE = 70.0


def coverage(context: Context) -> None:
    """Everything about how the views lie to each other and to the points."""
    if len(context.scene.frames) >= 3:
        _parts(context)
        _parallax(context)
        _directions(context)


def _parts(context: Context) -> None:
    """Groups of photographs that share no points with one another, by the points' tracks."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sightings, frames = context.sightings, context.scene.frames
    if not sightings.tracked:
        return
    _, points = np.unique(sightings.points, return_inverse=True)
    ones = np.ones(len(points), dtype=np.int32)
    seen = coo_matrix(
        (ones, (sightings.frames, points)), shape=(len(frames), int(points.max(initial=0)) + 1)
    ).tocsr()
    # Of many points a selection is looked at: as large a share of the ties is asked for.
    assert context.scene.points is not None
    share = min(1.0, len(np.unique(sightings.points)) / len(context.scene.points))
    shared = (seen @ seen.T).tocoo()
    strong = shared.data >= max(1.0, _SHARED * share)
    graph = coo_matrix(
        (shared.data[strong], (shared.row[strong], shared.col[strong])), shape=(len(frames),) * 2
    )
    count, part = connected_components(graph, directed=False)
    if count == 1:
        return
    main = int(np.bincount(part).argmax())
    names = [frame.name for frame, number in zip(frames, part, strict=True) if number != main]
    message = (
        f"{len(names)} photographs share fewer than {_SHARED} points with any of the others ({some(names)})"
    )
    remedy = "take photographs in between, or leave these out: nothing ties their place to the rest"
    context.warn("unconnected", message, remedy)


def _parallax(context: Context) -> None:
    """Whether points are seen from directions that differ."""
    sightings, scene = context.sightings, context.scene
    if not sightings.tracked or scene.points is None:
        return
    chosen, point = np.unique(sightings.points, return_inverse=True)
    centres = np.stack([frame.camera.position.double().numpy() for frame in scene.frames])
    rays = scene.points.xyz.numpy()[sightings.points] - centres[sightings.frames]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True).clip(1e-12)
    middle = np.stack([np.bincount(point, rays[:, axis], minlength=len(chosen)) for axis in range(3)], 1)
    middle = middle / np.linalg.norm(middle, axis=1, keepdims=True).clip(1e-12)
    away = np.degrees(np.arccos((rays * middle[point]).sum(1).clip(-1, 1)))
    widest = np.zeros(len(chosen))
    np.maximum.at(widest, point, away)
    flat = float((widest < _ANGLE / 2).mean())
    if flat > _SHARE:
        message = f"{flat:.0%} of the points are seen from directions within {_ANGLE:g} degrees of each other"
        context.warn(
            "low-parallax", message, "move further between photographs, to the side rather than ahead"
        )


def _directions(context: Context) -> None:
    """Around a scene that all cameras look at: where nobody stood, and how far apart neighbours are."""
    poses = [frame.camera.camera_to_world.double().numpy() for frame in context.scene.frames]
    places = np.stack([pose[:3, 3] for pose in poses])
    axes = np.stack([pose[:3, 2] for pose in poses])
    centre = _focus(places, axes)
    if centre is None:
        return
    out = places - centre
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    _steps(context, out)
    up = -np.stack([pose[:3, 1] for pose in poses]).mean(0)
    up /= max(float(np.linalg.norm(up)), 1e-12)
    level = np.abs(np.degrees(np.arcsin((out @ up).clip(-1, 1)))) < _POLE
    if level.sum() < 3:
        return
    east = np.cross(up, np.eye(3)[0 if abs(up[0]) < 0.7 else 1])
    east = east / np.linalg.norm(east)
    angles = np.sort(np.degrees(np.arctan2(out[level] @ np.cross(up, east), out[level] @ east)))
    gaps = np.diff(angles, append=angles[0] + 360)
    gap = float(gaps.max())
    context.report.note("directions", f"photographs go {360 - gap:.0f} degrees around what they look at")
    if max(_GAP, _UNUSUAL * float(np.median(gaps))) < gap < 360 - _CLOSED:
        names = [context.scene.frames[index].name for index in np.flatnonzero(level)]
        order = np.argsort(np.degrees(np.arctan2(out[level] @ np.cross(up, east), out[level] @ east)))
        first = int(gaps.argmax())
        ends = names[order[first]], names[order[(first + 1) % len(names)]]
        message = f"nobody stood in {gap:.0f} degrees of the circle, between {ends[0]} and {ends[1]}"
        context.warn("coverage-gap", message, "take photographs from there, every 15 degrees or so")


def _steps(context: Context, out: np.ndarray) -> None:
    """Whether neighbouring views are near enough; `out` are [N, 3] directions from the middle to the cameras."""
    cosines = out @ out.T
    np.fill_diagonal(cosines, -1)
    nearest = np.degrees(np.arccos(cosines.max(1).clip(-1, 1)))
    wide = float(np.percentile(nearest, 75))
    if wide > _STEP:
        needed = math.ceil(len(out) * (wide / 15) ** 2)
        message = f"neighbouring views are {wide:.0f} degrees apart as seen from the middle of the scene"
        remedy = f"take more: about {needed} would stand every 15 degrees"
        context.warn("sparse-views", message, remedy)


def _focus(places: np.ndarray, axes: np.ndarray) -> np.ndarray | None:
    """[3] the point nearest to all optical axes, where the cameras do look at one; else None."""
    across = np.eye(3) - axes[:, :, None] * axes[:, None]
    total = across.sum(0)
    if np.linalg.cond(total) > 1e6:  # parallel axes
        return None
    centre = np.linalg.solve(total, np.einsum("nij,nj->i", across, places))
    ahead = ((centre - places) * axes).sum(1)
    miss = np.linalg.norm(np.einsum("nij,nj->ni", across, centre - places), axis=1)
    # All but a few look at it, within 20 degrees or so.
    looking = (ahead > 0) & (miss < 0.35 * ahead)
    return centre if looking.mean() > 0.9 else None
