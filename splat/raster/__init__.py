"""Rasterization: `render` and its backends."""

from splat.raster.api import render
from splat.raster.heads import draw
from splat.raster.options import RenderOptions, RenderOutput

__all__ = ["RenderOptions", "RenderOutput", "draw", "render"]
