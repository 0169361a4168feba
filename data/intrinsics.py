"""Camera models as COLMAP numbers and names them, their sanity, and their scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pycolmap

# (name, number of parameters, number of focal lengths); the position is COLMAP's model id. The parameters begin
# with the focal lengths and the principal point. https://colmap.github.io/cameras.html
MODELS = (
    ("SIMPLE_PINHOLE", 3, 1),
    ("PINHOLE", 4, 2),
    ("SIMPLE_RADIAL", 4, 1),
    ("RADIAL", 5, 1),
    ("OPENCV", 8, 2),
    ("OPENCV_FISHEYE", 8, 2),
    ("FULL_OPENCV", 12, 2),
    ("FOV", 5, 2),
    ("SIMPLE_RADIAL_FISHEYE", 4, 1),
    ("RADIAL_FISHEYE", 5, 1),
    ("THIN_PRISM_FISHEYE", 12, 2),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2),
    ("SIMPLE_DIVISION", 4, 1),
    ("DIVISION", 5, 2),
    ("SIMPLE_FISHEYE", 3, 1),
    ("FISHEYE", 4, 2),
    ("EUCM", 6, 2),
    ("EQUIRECTANGULAR", 2, 0),
)
_BY_NAME = {name: (count, focals) for name, count, focals in MODELS}

# With every coefficient zero these are plain pinholes.
_PERSPECTIVE = frozenset({"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"})

# Focal length over the longer image side. 0.05 is a fisheye of far more than 180 degrees, 100 a field of half a
# degree: beyond them a file is damaged or its units are not pixels.
_FOCAL_RATIO = (0.05, 100.0)
_MAX_SIDE = 100_000


@dataclass(frozen=True)
class Intrinsics:
    """A camera without its pose, in COLMAP's terms.

    Attributes:
        model: COLMAP's name of the model.
        params: its parameters in COLMAP's order, pixels and coefficients.
        width, height: size of the photographs, pixels.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy: the model without its distortion."""
        focals = _BY_NAME[self.model][1]
        fx, fy = self.params[0], self.params[focals - 1]
        return fx, fy, self.params[focals], self.params[focals + 1]

    @property
    def distorted(self) -> bool:
        """Whether straight lines of the world are bent in the photograph."""
        if self.model not in _PERSPECTIVE:
            return True
        return any(value != 0 for value in self.params[_BY_NAME[self.model][1] + 2 :])

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera for photographs sampled at another size."""
        sx, sy = width / self.width, height / self.height
        focals = _BY_NAME[self.model][1]
        # A single focal length serves both axes; the sizes agree in aspect but for rounding.
        focal = (sx, sy) if focals == 2 else ((sx + sy) / 2,)
        scales = (*focal, sx, sy)
        scaled = tuple(value * scale for value, scale in zip(self.params, scales, strict=False))
        return replace(self, params=scaled + self.params[len(scales) :], width=width, height=height)

    def fault(self) -> tuple[str, str, str] | None:
        """(code, cause, remedy) where no such camera can have taken a photograph, else None."""
        if self.model not in _BY_NAME:
            known = ", ".join(name for name, _, _ in MODELS if name != "EQUIRECTANGULAR")
            return "camera-model", f"unknown camera model {self.model!r}", f"use one of {known}"
        count, focals = _BY_NAME[self.model]
        if len(self.params) != count:
            cause = f"camera model {self.model} has {len(self.params)} parameters where {count} are needed"
            return "camera-model", cause, "export the model again"
        if focals == 0:
            cause = f"camera model {self.model} is a panorama, which no pinhole can hold"
            return (
                "camera-model",
                cause,
                "cut the panoramas into perspective views (COLMAP: panorama_sfm) first",
            )
        again = "estimate the intrinsics again, or correct them by hand"
        if not (0 < self.width <= _MAX_SIDE and 0 < self.height <= _MAX_SIDE):
            return "intrinsics", f"image size {self.width}x{self.height} is absurd", again
        if not all(math.isfinite(value) for value in self.params):
            return "intrinsics", f"intrinsics are not finite ({self.model} {list(self.params)})", again
        fx, fy, cx, cy = self.pinhole
        if min(fx, fy) <= 0:
            return "intrinsics", f"focal length {min(fx, fy):g} is not positive", again
        side = max(self.width, self.height)
        for focal in (fx, fy):
            if not _FOCAL_RATIO[0] <= focal / side <= _FOCAL_RATIO[1]:
                return (
                    "intrinsics",
                    f"focal length {focal:g} is absurd for {self.width}x{self.height} pixels",
                    again,
                )
        if not (-self.width <= cx <= 2 * self.width and -self.height <= cy <= 2 * self.height):
            cause = f"principal point ({cx:g}, {cy:g}) is far outside the {self.width}x{self.height} image"
            return "intrinsics", cause, again
        return None

    def colmap_camera(self) -> pycolmap.Camera:
        """The same camera as pycolmap's object, which projects and unprojects."""
        import pycolmap

        return pycolmap.Camera(
            model=self.model, width=self.width, height=self.height, params=list(self.params)
        )
