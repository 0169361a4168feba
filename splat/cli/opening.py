"""Where a page of the scene is looked at from first, and what is behind it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from splat.cli.scene import Loaded
from splat.core import Gaussians
from splat.core.transforms import Similarity
from splat.viewer.cameras import pivot, up_direction


def opening(loaded: Loaded, scene: Gaussians, turn: Similarity | None, origin: Tensor) -> dict[str, Any]:
    """Metadata `view` and `background` (codecs.format.Metadata), as far as the run or dataset knows them.

    Args:
        scene: in the coordinates of `loaded`.
        turn: what the file's scene is turned and enlarged by.
        origin: [3] float64 where the origin of those coordinates then lies in the file.
    """
    if loaded.session is None and loaded.data is None:
        return {}
    cameras = loaded.cameras("all")
    if not cameras:
        return {}
    first = cameras[0]
    target = pivot(first, scene)
    up = up_direction(cameras).double()

    def moved(point: Tensor) -> list[float]:
        point = point.detach().double().cpu()
        return ((point if turn is None else turn.points(point)) + origin).tolist()

    sides = (first.width / first.fx, first.height / first.fy)
    return {
        "view": {
            "position": moved(first.position),
            "target": moved(target),
            "up": (up if turn is None else turn.rotation @ up).tolist(),
            "fov": [math.degrees(2 * math.atan(side / 2)) for side in sides],
        },
        "background": list(loaded.background),
    }
