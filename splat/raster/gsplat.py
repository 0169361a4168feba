"""The same render through gsplat's CUDA kernels, for comparison and parity.

gsplat (Ye et al., "gsplat: An Open-Source Library for Gaussian Splatting", JMLR 2025) compiles its kernels
when they are first used, which takes minutes. It limits alpha at 0.999 and has no exact tile test; apart from
that it draws with the conventions of this package.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import Camera, DeviceError, Gaussians, UsageError, sh
from splat.raster.constants import EPS2D, NEAR, SH_OFFSET
from splat.raster.options import RenderOptions, RenderOutput

CAN = frozenset({"depth", "means2d_grad", "absgrad", "radii"})
"""The outputs that gsplat has, of splat.raster.options.NEEDS."""


class GsplatBackend:
    """`render` by gsplat's `rasterization`, float32, on an NVIDIA GPU.

    Raises DeviceError where gsplat or the GPU is missing.
    """

    name = "gsplat"

    def __init__(self, rasterization: Callable[..., Any] | None = None) -> None:
        """`rasterization` stands in for gsplat's own."""
        self._rasterization = rasterization or load()

    def render(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> RenderOutput:
        unknown = options.needs - CAN
        if unknown:
            raise UsageError(
                f"the gsplat backend does not draw {', '.join(sorted(unknown))}: it has image, alpha, features, "
                f"{', '.join(sorted(CAN))}"
            )
        if options.deferred is not None:
            raise UsageError("the gsplat backend has no fused step: leave RenderOptions.deferred None")

        means, device = gaussians.means, gaussians.device
        pose = camera.world_to_camera.to(device, torch.float32)
        degree = gaussians.sh_degree
        if options.sh_degree is not None:
            degree = min(degree, options.sh_degree)
        background = None if options.background is None else options.background.to(device, torch.float32)
        colors, channels = gaussians.sh, 3
        bands: int | None = degree
        if options.features is not None:
            # It draws either harmonics or plain channels, so that the colours are computed here.
            directions = functional.normalize(means - camera_position(pose), dim=1)
            seen = (sh.evaluate(gaussians.sh, directions, degree) + SH_OFFSET).clamp_min(0)
            colors = torch.cat([seen, options.features], 1)
            channels, bands = colors.shape[1], None
            if background is not None:
                background = functional.pad(background, (0, channels - 3))
        depth = "depth" in options.needs
        drawn, alpha, meta = self._rasterization(
            means=means,
            quats=gaussians.quats,
            scales=gaussians.scales(),
            opacities=gaussians.opacities(),
            colors=colors,
            viewmats=pose[None],
            Ks=camera.matrix.to(device, torch.float32)[None],
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            eps2d=EPS2D,
            sh_degree=bands,
            packed=False,
            backgrounds=None if background is None else background[None],
            render_mode="RGB+ED" if depth else "RGB",
            absgrad="absgrad" in options.needs,
            rasterize_mode="antialiased" if gaussians.antialiased else "classic",
            # All channels in one pass: each pass of several would overwrite the absolute gradients.
            channel_chunk=max(32, channels + depth),
        )
        signed, absolute = collect_gradients(meta["means2d"], options.needs)
        return RenderOutput(
            image=drawn[0, ..., :3],
            alpha=alpha[0, ..., 0],
            depth=drawn[0, ..., -1] if depth else None,
            features=None if options.features is None else drawn[0, ..., 3:channels],
            radii=meta["radii"][0].amax(-1) if "radii" in options.needs else None,
            means2d_grad=signed,
            means2d_absgrad=absolute,
            extras={"gsplat": meta},
        )


def camera_position(pose: Tensor) -> Tensor:
    """[3] where the camera of the world-to-camera `pose` stands."""
    return -pose[:3, :3].T @ pose[:3, 3]


def collect_gradients(means2d: Tensor, needs: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
    """([N, 2] signed, [N, 2] absolute) gradients, as far as `needs` asks: zero until backward fills them.

    means2d is gsplat's [1, N, 2]; its backward leaves the absolute gradients in the attribute `absgrad`.
    """
    signed = torch.zeros_like(means2d[0]) if "means2d_grad" in needs else None
    absolute = torch.zeros_like(means2d[0]) if "absgrad" in needs else None
    if means2d.requires_grad and (signed is not None or absolute is not None):
        # A hook that held the tensor would keep the whole graph alive.
        source = weakref.ref(means2d)

        def collect(gradient: Tensor) -> None:
            if signed is not None:
                signed.copy_(gradient[0])
            if absolute is not None:
                centres: Any = source()
                absolute.copy_(centres.absgrad[0])

        means2d.register_hook(collect)
    return signed, absolute


def load() -> Callable[..., Any]:
    """gsplat's `rasterization`; DeviceError, with the remedy, where it cannot run."""
    if not torch.cuda.is_available():
        raise DeviceError(
            "the gsplat backend needs an NVIDIA GPU and torch's CUDA build, and none was found: use --backend cpu"
        )
    try:
        import gsplat
        from gsplat.cuda import _backend
    except ImportError as error:
        raise DeviceError(
            f"the gsplat backend needs the package gsplat ({error}): pip install gsplat"
        ) from error
    if _backend._C is None:
        raise DeviceError(
            "gsplat could not compile its kernels: install the CUDA toolkit (nvcc) of torch's CUDA version "
            f"{torch.version.cuda}"
        )
    return gsplat.rasterization
