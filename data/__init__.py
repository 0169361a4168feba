"""Datasets: reading them, decoding their photographs, checking them.

>>> scene = read_scene("fox")
>>> with Dataset(scene, downscale=4) as data:
...     photo, camera = data.photo(0), data.camera(0)
"""

from typing import TYPE_CHECKING

# Before any module here imports pycolmap: where pycolmap comes first, Pillow's PNG writer crashes.
import numpy  # noqa: F401

from splat.core.lazy import names_from

if TYPE_CHECKING:
    from splat.data.dataset import Dataset
    from splat.data.images import Photo
    from splat.data.points import random_points
    from splat.data.registry import read_scene
    from splat.data.scene import Frame, Points, Scene, Tracks

__all__ = ["Dataset", "Frame", "Photo", "Points", "Scene", "Tracks", "random_points", "read_scene"]

__getattr__ = names_from(
    __name__,
    {
        "Dataset": "splat.data.dataset",
        "Frame": "splat.data.scene",
        "Photo": "splat.data.images",
        "Points": "splat.data.scene",
        "Scene": "splat.data.scene",
        "Tracks": "splat.data.scene",
        "random_points": "splat.data.points",
        "read_scene": "splat.data.registry",
    },
)
