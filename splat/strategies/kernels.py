"""The kernels of density control: native for float32 on the CPU (MCMC's) and on GPUs, torch otherwise.

`kernels_reference` is their twin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splat import _native
from splat.strategies import kernels_reference
from splat.strategies.constants import RELOCATION_MAX
from splat.training import gpu


def add_noise_(
    means: Tensor,
    quats: Tensor,
    log_scales: Tensor,
    logit_opacities: Tensor,
    eta: Tensor,
    gain: float | Tensor,
    guard: Any = None,
) -> None:
    """Explore: means += gain sigmoid(100 ((1 - o) - 0.995)) Sigma eta, in place.

    Sigma is each Gaussian's covariance itself, not its root; opaque Gaussians hardly move.

    Args:
        means: [N, 3] centres, world units; changed in place.
        quats: [N, 4] wxyz, not normalised.
        log_scales: [N, 3].
        logit_opacities: [N].
        eta: [N, 3] samples of N(0, I).
        gain: 5e5 times the learning rate of the means (which holds the scene extent); as a tensor [] where the
            device reads it.
        guard: ctx.guard, where a step may turn out to be refused.

    Source: Kheradmand et al. 2024, section 4.2.
    """
    tensors = (means, quats, log_scales, logit_opacities, eta)
    if _native_fits(*tensors):
        _native.mcmc_noise(*(t.detach() for t in tensors), float(gain), torch.get_num_threads())
    elif (kernels := gpu.kernels_for(*tensors)) is not None:
        gpu.add_noise_(kernels, *tensors, gain, guard)
    else:
        kernels_reference.add_noise_(means.detach(), quats, log_scales, logit_opacities, eta, float(gain))


def relocation(opacities: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What each of `counts` equal Gaussians must be to look like the one whose place they share.

    Args:
        opacities: [N] in (0, 1).
        counts: [N] int32 or int64, 1 to RELOCATION_MAX; larger ones count as RELOCATION_MAX.

    Returns:
        [N] their opacity 1 - (1 - o)^(1 / n), and [N] the factor of their scales.

    Source: Kheradmand et al. 2024, equation 9.
    """
    # An opacity that rounds to one has no finite optical depth to share out.
    opacities = opacities.clamp(max=1 - torch.finfo(torch.float32).eps).contiguous()
    counts = counts.clamp(1, RELOCATION_MAX).to(torch.int32).contiguous()
    kernels = gpu.kernels_for(opacities)
    if kernels is not None:
        return gpu.relocation(kernels, opacities.detach(), counts)
    if not _native_fits(opacities):
        return kernels_reference.relocation(opacities, counts)
    new, factor = torch.empty_like(opacities), torch.empty_like(opacities)
    _native.mcmc_relocation(opacities.detach(), counts, new, factor, torch.get_num_threads())
    return new, factor


def accumulate_gradients_(
    sums: Tensor,
    views: Tensor,
    gradient: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    guard: Any = None,
) -> None:
    """What adaptive density control keeps of a render, in place: lengths of gradients, and views.

    Args:
        sums: [N] lengths of the gradients by the projected centres, in normalised device coordinates, whose
            range of 2 spans the image.
        views: [N] number of renders that drew the Gaussian.
        gradient: [N, 2] of this render, per pixel; zero where nothing was drawn.
        radii: [N] int32 of this render, 0 where nothing was drawn.
        width, height: size of the image, pixels.
        guard: ctx.guard, where a step may turn out to be refused.

    Source: Kerbl et al. 2023, section 5.2.
    """
    kernels = gpu.kernels_for(sums, views, gradient)
    if kernels is not None:
        gpu.accumulate_gradients_(kernels, sums, views, gradient, radii.contiguous(), width, height, guard)
    else:
        kernels_reference.accumulate_gradients_(sums, views, gradient, radii, width, height)


def _native_fits(*tensors: Tensor) -> bool:
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
