"""Splat: photographs to 3D Gaussian scenes.

The names below are imported when first used, so that `import splat` and `splat --help` do not wait for torch.
"""

from typing import TYPE_CHECKING

from splat.core.lazy import names_from

if TYPE_CHECKING:
    from splat.core import Camera, Gaussians, SplatError
    from splat.raster import RenderOptions, RenderOutput, render

__version__ = "0.1.0"
__all__ = ["Camera", "Gaussians", "RenderOptions", "RenderOutput", "SplatError", "__version__", "render"]

__getattr__ = names_from(
    __name__,
    {
        "Camera": "splat.core",
        "Gaussians": "splat.core",
        "RenderOptions": "splat.raster",
        "RenderOutput": "splat.raster",
        "SplatError": "splat.core",
        "render": "splat.raster",
    },
)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
