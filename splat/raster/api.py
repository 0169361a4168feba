"""`render`: one function over every backend."""

from __future__ import annotations

from splat.core import Camera, Gaussians, UsageError
from splat.core.checks import check_tensor
from splat.raster import registry
from splat.raster.options import NEEDS, RenderOptions, RenderOutput


def render(gaussians: Gaussians, camera: Camera, options: RenderOptions | None = None) -> RenderOutput:
    """Draw `gaussians` as `camera` sees them; differentiable in every parameter and in the pose.

    Raises:
        UsageError: an unknown backend or output.
        ValueError, TypeError: tensors whose shapes, types or devices do not fit.
    """
    options = options or RenderOptions()
    _check(gaussians, camera, options)
    return registry.backend(options.backend, gaussians.device).render(gaussians, camera, options)


def _check(gaussians: Gaussians, camera: Camera, options: RenderOptions) -> None:
    """What every backend relies on. Reads no values, so that it never waits for a device."""
    gaussians.validate()
    check_tensor("camera.world_to_camera", camera.world_to_camera, (4, 4))
    if camera.width < 1 or camera.height < 1:
        raise ValueError(f"camera: the size is {camera.width} x {camera.height} pixels")
    if options.background is not None:
        check_tensor("options.background", options.background, (3,))
    if options.features is not None:
        check_tensor("options.features", options.features, (len(gaussians), None), device=gaussians.device)
    if options.sh_degree is not None and options.sh_degree < 0:
        raise ValueError(f"options.sh_degree: expected 0 or more, got {options.sh_degree}")
    unknown = options.needs - NEEDS
    if unknown:
        raise UsageError(
            f"render has no output called {', '.join(sorted(unknown))}: there are {', '.join(sorted(NEEDS))}"
        )
