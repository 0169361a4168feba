"""When two backends agree.

The bounds are those the project sets itself: gradients with cosine >= 0.9999 and norm ratio 1 +- 1e-3, and per
Gaussian a relative error with median <= 1e-4 and 99th percentile <= 1e-2. Outputs differ by float32 rounding
(1e-5 relative to values of order one, tens of splats deep) but for pixels where a cut-off flips: at most
FLIP_SHARE of them.
"""

from __future__ import annotations

import torch
from hostile import OUTPUTS, STATISTICS
from torch import Tensor

from splat.raster import RenderOutput

FLIP_SHARE = 2e-3


def assert_gradients_agree(native: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    for name, expected in truth.items():
        got = native[name].cpu().double()
        cosine = (got * expected).sum() / (got.norm() * expected.norm())
        assert cosine >= 0.9999, name
        assert abs(got.norm() / expected.norm() - 1) <= 1e-3, name
        if name in ("pose", "background"):
            continue
        got, expected = got.flatten(1) if got.dim() > 1 else got[:, None], expected.reshape(len(expected), -1)
        size = expected.norm(dim=1)
        relative = ((got - expected).norm(dim=1) / size)[size > 0]
        assert relative.median() <= 1e-4, name
        assert torch.quantile(relative, 0.99) <= 1e-2, name


def assert_pictures_agree(got: RenderOutput, truth: RenderOutput) -> None:
    for name in OUTPUTS:
        value = getattr(truth, name).detach()
        error = (getattr(got, name).detach().cpu().double() - value).abs() / (1 + value.abs())
        assert (error > 2e-5).double().mean() <= FLIP_SHARE, name


def assert_outputs_agree(got: RenderOutput, truth: RenderOutput) -> None:
    """Pictures and statistics; `truth` in float64."""
    assert_pictures_agree(got, truth)
    assert (got.ids.cpu() != truth.ids).double().mean() <= FLIP_SHARE
    # A half axis within rounding of an integer.
    assert (got.radii.cpu() != truth.radii).double().mean() <= 2e-3
    for name in STATISTICS:
        value = getattr(truth, name).double()
        assert (getattr(got, name).cpu().double() - value).norm() <= 1e-3 * value.norm(), name
