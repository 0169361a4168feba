"""Gaussians, cameras, spherical harmonics, transforms, errors. Imports torch only, and that when it is needed."""

from typing import TYPE_CHECKING

from splat.core.errors import DataError, DeviceError, Interrupted, SplatError, UsageError
from splat.core.lazy import names_from

if TYPE_CHECKING:
    from splat.core.camera import Camera
    from splat.core.gaussians import Gaussians

__all__ = ["Camera", "DataError", "DeviceError", "Gaussians", "Interrupted", "SplatError", "UsageError"]

__getattr__ = names_from(__name__, {"Camera": "splat.core.camera", "Gaussians": "splat.core.gaussians"})
