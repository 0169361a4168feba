"""The model adjusted once more, each camera with as much freedom as its photographs have evidence for.

The mapper keeps the principal point in the middle and one focal length. Cameras of many photographs get two focal
lengths and four terms of distortion; and a principal point of their own where the points tell where it is. A shift of
it looks nearly like a turn of the photographs: freed where points are few and coarse, as in small videos, it drifts by
up to thirty pixels, which spoils the rotations and makes no error smaller.
"""

from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_MANY = 20  # photographs of one camera that fix two focal lengths and four terms of distortion
_MAX_ERROR = 4.0  # pixels; points beyond it are left out, as COLMAP does
_MIN_ANGLE = 1.5  # degrees, likewise
_CENTRE = 2  # numbers of a principal point
_NONE = 1e-300  # squared pixels


def refine(model: Any, job: Job) -> Any:
    """Bundle adjustment with all that each camera has evidence for; gives the model, which may be another object."""
    import pycolmap

    counts = Counter(model.image(identity).camera_id for identity in model.reg_image_ids())
    many = {identity for identity, count in counts.items() if count >= _MANY}
    if not many:
        return model
    if job.options.camera_model == "auto":
        for identity in many:
            camera = model.camera(identity)
            focal, cx, cy, k = (float(p) for p in camera.params)  # SIMPLE_RADIAL
            camera.model = pycolmap.CameraModelId.OPENCV
            camera.params = [focal, focal, cx, cy, k, 0.0, 0.0, 0.0]
    _adjust(model, many, centres=False)
    freed = copy.deepcopy(model)
    _adjust(freed, many, centres=True)
    before, after = _squares(model), _squares(freed)
    earned = {identity for identity in many if earns(*before[identity], after[identity][0])}
    if earned == many:
        model = freed
    elif earned:
        _adjust(model, earned, centres=True)
    manager = pycolmap.ObservationManager(model)
    manager.filter_all_points3D(_MAX_ERROR, _MIN_ANGLE)
    model.update_point_3d_errors()
    return model


def earns(before: float, points: int, after: float) -> bool:
    """Whether a principal point makes the squared errors of a camera, `before` and `after`, so much smaller that it is
    no chance (the Bayesian information criterion, Schwarz 1978). The errors of a point are alike in all photographs
    that show it, so that it counts once."""
    return after < before and points * math.log(before / max(after, _NONE)) > _CENTRE * math.log(points)


def _adjust(model: Any, free: Set[int], *, centres: bool) -> None:
    """Bundle adjustment with the lenses of the cameras `free`, and their principal points if `centres`; the other
    cameras stay as they are."""
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions(refine_principal_point=centres, print_summary=False)
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for identity in sorted(model.reg_image_ids()):
        config.add_image(identity)
    for identity in model.cameras:
        if identity not in free:
            config.set_constant_cam_intrinsics(identity)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def _squares(model: Any) -> dict[int, tuple[float, int]]:
    """{camera: (sum of squared reprojection errors in pixels, points that it sees)}; points behind it count not."""
    squares: defaultdict[int, float] = defaultdict(float)
    seen: defaultdict[int, set[int]] = defaultdict(set)
    images = {identity: model.image(identity) for identity in model.reg_image_ids()}
    for identity, point in model.points3D.items():
        for element in point.track.elements:
            image = images[element.image_id]
            pixel = image.project_point(point.xyz)
            if pixel is not None:
                off = pixel - image.points2D[element.point2D_idx].xy
                squares[image.camera_id] += float(off @ off)
                seen[image.camera_id].add(identity)
    return {identity: (squares[identity], len(seen[identity])) for identity in model.cameras}
