"""Rasterization: `render` and its backends."""

from splat.raster.api import RenderOptions, RenderOutput, render

__all__ = ["RenderOptions", "RenderOutput", "render"]
