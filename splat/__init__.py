"""Splat: photographs to 3D Gaussian scenes."""

from splat.core import Camera, Gaussians, SplatError

__version__ = "0.1.0"
__all__ = ["Camera", "Gaussians", "RenderOptions", "RenderOutput", "SplatError", "__version__", "render"]

from splat.raster import RenderOptions, RenderOutput, render
