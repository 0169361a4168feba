"""Splat: photographs to 3D Gaussian scenes.

The names below are imported when first used, so that `import splat` and `splat --help` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat.core import Camera, Gaussians, SplatError
    from splat.raster import RenderOptions, RenderOutput, render

__version__ = "0.1.0"
__all__ = ["Camera", "Gaussians", "RenderOptions", "RenderOutput", "SplatError", "__version__", "render"]

_HOME = {
    "Camera": "splat.core",
    "Gaussians": "splat.core",
    "SplatError": "splat.core",
    "RenderOptions": "splat.raster",
    "RenderOutput": "splat.raster",
    "render": "splat.raster",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
