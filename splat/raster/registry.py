"""Backends by name. A backend is imported when it is first asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol

import torch

from splat.core import Camera, Gaussians, UsageError
from splat.raster.options import RenderOptions, RenderOutput

_BACKENDS = {
    "reference": "splat.raster.reference:ReferenceBackend",
    "cpu": "splat.raster.native:NativeBackend",
    "cuda": "splat.raster.cuda:CudaBackend",
    "gsplat": "splat.raster.gsplat:GsplatBackend",
}
# Device type -> what "auto" means there; elsewhere the reference draws.
_AUTO = {"cpu": "cpu", "cuda": "cuda"}


class Backend(Protocol):
    """Draws scenes. Backends hold no state between renders."""

    name: str

    def render(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> RenderOutput: ...


def names() -> tuple[str, ...]:
    """What RenderOptions.backend may be besides "auto"."""
    return tuple(_BACKENDS)


def backend(name: str, device: torch.device) -> Backend:
    """The backend called `name`; "auto" chooses by the tensors' device.

    UsageError where there is none, DeviceError where it cannot run on this machine.
    """
    if name == "auto":
        name = _AUTO.get(device.type, "reference")
    if name not in _BACKENDS:
        raise UsageError(f"no render backend is called {name!r}: choose auto, {', '.join(_BACKENDS)}")
    return _load(name)


@cache
def _load(name: str) -> Backend:
    module, attribute = _BACKENDS[name].split(":")
    return getattr(import_module(module), attribute)()
