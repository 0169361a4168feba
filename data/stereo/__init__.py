"""Plane-sweep multi-view stereo on torch: posed pictures in; depth maps, confidence and a coloured cloud out.

>>> views = [StereoView(camera, image) for camera, image in ...]
>>> found = reconstruct(views, points)      # .depths, .points
"""

from splat.data.stereo.completion import Completion, CompletionOptions, complete
from splat.data.stereo.reconstruct import Reconstruction, StereoOptions, reconstruct
from splat.data.stereo.views import DepthMap, StereoView

__all__ = [
    "Completion",
    "CompletionOptions",
    "DepthMap",
    "Reconstruction",
    "StereoOptions",
    "StereoView",
    "complete",
    "reconstruct",
]
