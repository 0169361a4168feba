"""Gaussians, cameras, spherical harmonics, transforms, errors. Imports torch only."""

from splat.core.camera import Camera
from splat.core.errors import DataError, DeviceError, Interrupted, SplatError, UsageError
from splat.core.gaussians import Gaussians

__all__ = ["Camera", "DataError", "DeviceError", "Gaussians", "Interrupted", "SplatError", "UsageError"]
