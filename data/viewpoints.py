"""Whether posed views can show a scene in depth at all: told before the first step, with what to shoot instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from splat.core import Camera
from splat.data.points import FEW_VIEWS, camera_radius, in_view
from splat.data.problems import DatasetError, Report
from splat.data.scene import Points

# Of the distance to what is seen. Rays from both ends of such a path meet at 0.6 degrees: a pixel of common
# photographs (1/1000 of the distance to the picture) then is a tenth of the depth.
_SMALL_BASELINE = 0.01
_FEW_SHARED = 30  # points that tell more of a scene than chance
NEAR = 0.01
"""The rasterizer's near plane, world units."""

_NEAREST, _FARTHEST = 0.5, 100.0  # depths at which views may overlap, in radii of the cameras' positions


def examine(
    root: Path, cameras: Sequence[Camera], depth: float, points: Points | None, report: Report
) -> None:
    """Report what is doubtful about the training views.

    Args:
        root: the dataset, for messages.
        cameras: of the training views, at least 2.
        depth: median depth of the points, 0 where there are none.
        points: the points with tracks of these views; None where nothing is known of what they share.

    Raises:
        DatasetError: (strict report) all stand at one place, no two see anything in common, or half of what they
            see is too near to be drawn.
    """
    centre, radius = camera_radius(cameras)
    count = len(cameras)
    if radius <= 1e-6 * max(1e-3 * float(centre.norm()), depth):
        cause = f"all {count} training views are taken from one place, which shows no depth"
        remedy = "shoot again while walking around the subject, a step to the side for each photograph"
        report.error(DatasetError("no-parallax", root, cause, remedy))
    elif count <= FEW_VIEWS and not _overlapping(cameras, radius):
        cause = f"no two of the {count} training views see anything in common"
        remedy = "shoot so that each part of the scene is in three photographs, 10 to 20 degrees apart"
        report.error(DatasetError("no-overlap", root, cause, remedy))
    elif radius < _SMALL_BASELINE * depth:
        message = (
            f"{root}: the training views lie within {2 * radius / depth:.1%} of the distance to what they see, which "
            "hardly shows depth"
        )
        report.warn("shallow", message, "step aside by a tenth of the distance between photographs")
    _examine_scale(root, depth, report)
    if points is not None and len(points) < _FEW_SHARED:
        what = f"only {len(points)} points are" if len(points) else "no point is"
        message = f"{root}: {what} seen by two of the {count} training views"
        remedy = "shoot so that each part of the scene is in three photographs, 10 to 20 degrees apart"
        report.warn("few-shared", message, remedy)


def _examine_scale(root: Path, depth: float, report: Report) -> None:
    """Whether the model's units are so large that what is seen comes near the near plane.

    gsplat has the same plane, other viewers one of 0.01 to 0.2 units: a scene trained around it would not be seen in
    them either, so that it is for the model to be scaled.
    """
    if not 0 < depth < 10 * NEAR:
        return
    cause = f"half of what is seen is nearer than {depth:.2g} units, and nothing nearer than {NEAR} is drawn"
    factor = 10 ** math.ceil(-math.log10(depth))
    remedy = f"scale the model up by {factor:,}, as COLMAP's model_transformer does"
    if depth < NEAR:
        report.error(DatasetError("tiny-scale", root, cause, remedy))
    else:
        report.warn("tiny-scale", f"{root}: {cause}", remedy)


def _overlapping(cameras: Sequence[Camera], radius: float) -> bool:
    """Whether some point of some view, at any reasonable depth, is in another view's picture as well."""
    depths = torch.logspace(0, 1, 24, base=_FARTHEST / _NEAREST, dtype=torch.float64) * _NEAREST * radius
    steps = (torch.arange(12, dtype=torch.float64) + 0.5) / 12
    for camera in cameras:
        x = (steps * camera.width - camera.cx) / camera.fx
        y = (steps * camera.height - camera.cy) / camera.fy
        rays = torch.stack([*torch.meshgrid(x, y, indexing="ij"), torch.ones(12, 12)], -1).reshape(-1, 3)
        to_world = camera.camera_to_world.double()
        xyz = (depths[:, None, None] * rays).reshape(-1, 3) @ to_world[:3, :3].T + to_world[:3, 3]
        if any(bool(in_view(other, xyz).any()) for other in cameras if other is not camera):
            return True
    return False
