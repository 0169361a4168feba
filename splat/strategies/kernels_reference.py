"""The kernels of density control in readable torch: the truth that the native ones are tested against.

Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", NeurIPS 2024: the noise of section
4.2 and the relocation of section 4.3 (equation 9, appendix B). Kerbl et al., "3D Gaussian Splatting for
Real-Time Radiance Field Rendering", SIGGRAPH 2023: the statistics of section 5.2. Any floating dtype, any
device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splat.core.rotations import quat_to_matrix
from splat.strategies.constants import NOISE_OPACITY, NOISE_SHARPNESS


def add_noise_(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, eta: Tensor, gain: float
) -> None:
    """means += gain sigmoid(100 (0.005 - o)) Sigma eta, in place; see `splat.strategies.kernels`."""
    rotation = quat_to_matrix(quats)
    variances = torch.exp(2 * log_scales)[..., None]
    moved = rotation @ (variances * (rotation.mT @ eta[..., None]))
    willing = torch.sigmoid(NOISE_SHARPNESS * (NOISE_OPACITY - torch.sigmoid(logit_opacities)))
    means.add_(moved[..., 0] * willing[:, None], alpha=gain)


def relocation(opacities: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """([N] new opacities, [N] factors of the scales); see `splat.strategies.kernels`."""
    opacity = opacities.double()
    new = -torch.expm1(torch.log1p(-opacity) / counts)
    total = torch.zeros_like(new)
    for row in range(opacity.shape[0]):
        for i in range(1, int(counts[row]) + 1):
            for k in range(i):
                term = math.comb(i - 1, k) * (-1) ** k * new[row] ** (k + 1) / math.sqrt(k + 1)
                total[row] += term
    return new.to(opacities.dtype), (opacity / total).to(opacities.dtype)


def accumulate_gradients_(
    sums: Tensor, views: Tensor, gradient: Tensor, radii: Tensor, width: int, height: int
) -> None:
    """sums += |gradient * (width, height) / 2|, views += radii > 0; see `splat.strategies.kernels`."""
    sums += torch.hypot(gradient[:, 0] * (width / 2), gradient[:, 1] * (height / 2))
    views += radii > 0
