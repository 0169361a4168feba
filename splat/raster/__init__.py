"""Rasterization: `render` and its backends."""

from splat.raster.api import RenderOptions, RenderOutput, render
from splat.raster.heads import draw

__all__ = ["RenderOptions", "RenderOutput", "draw", "render"]
