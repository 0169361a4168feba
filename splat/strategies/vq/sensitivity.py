"""What a change of a parameter costs in squared error, read off the optimizer.

The gradient of an L1 loss over n values is the sum of sign(r) dI/dp / n over residuals r. Where their signs
are independent its mean square is sum (dI/dp)^2 / n^2, the diagonal of the Gauss-Newton matrix: a change d of
p raises the mean squared error by n E[g^2] d^2. Adam keeps E[g^2], over all views, as its second moment. Signs of
neighbouring pixels agree, which makes E[g^2] larger, by 20 to 50 times on fox at 270 x 480 (rises of the error after
quantization against those foretold): `_PATCH`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splat.codecs.vq.scene import BANDS
from splat.core import Gaussians
from splat.training.optim import BETAS, GaussianAdam

# Pixels whose residuals are alike.
_PATCH = 30.0
# Weights below this share of their median are raised to it: some Gaussians are seen by no view.
_LEAST = 1e-3


def weights(optimizer: GaussianAdam, values: int) -> dict[str, Tensor]:
    """Attribute -> [N] rise of the mean squared error per squared change of a component.

    `means` is there too; `rotation` counts per squared change (Frobenius) of the covariance over its largest
    eigenvalue, see `rotation_scale`.

    Args:
        values: of a photograph, 3 times its pixels.
    """
    g = optimizer.gaussians
    corrected = values / _PATCH / (1 - BETAS[1] ** max(1, optimizer.count))
    second = {name: moments[1] * corrected for name, moments in optimizer.moments.items()}
    found = {
        "means": second["means"].mean(1),
        "scale": second["log_scales"].mean(1),
        "rotation": second["quats"].sum(1) / 12 / rotation_scale(g),
        "opacity": second["logit_opacities"],
        "color": second["sh"][:, 0].mean(1),
    }
    for degree, name in enumerate(BANDS[: g.sh_degree], 1):
        found[name] = second["sh"][:, degree**2 : (degree + 1) ** 2].mean((1, 2))
    return {name: _raised(w) for name, w in found.items()}


def rotation_scale(g: Gaussians) -> Tensor:
    """[N] mean squared change of the covariance, over its largest eigenvalue, per squared angle.

    A turn by a small angle t about axis k changes the covariance by 2 t^2 (l_i - l_j)^2 (Frobenius, squared),
    l the eigenvalues; the mean is over the axes.
    """
    eigenvalues = (2 * (g.log_scales - g.log_scales.amax(1, keepdim=True))).exp()
    gaps = eigenvalues - eigenvalues.roll(1, dims=1)
    return (2 / 3 * gaps.square().sum(1)).clamp(min=1e-4)


def worth(g: Gaussians, weight: Tensor) -> Tensor:
    """[N] rise of the mean squared error where a Gaussian is taken away, from the `weight` of its opacity.

    Its opacity o changes by o, which is o / (o (1 - o)) in the logit to first order.
    """
    return weight / (1 - g.opacities()).clamp(min=1e-3).square()


def _raised(weight: Tensor) -> Tensor:
    if weight.numel() == 0:
        return weight
    median = weight.double().median()
    return weight.clamp(min=max(float(median) * _LEAST, torch.finfo(torch.float32).tiny))
