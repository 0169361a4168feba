"""The photometric loss, SSIM and PSNR: the torch twin against its definition, the kernel against the twin."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import images
from torch import Tensor

from splat import _native
from splat.training import losses, losses_reference
from splat.training.constants import SSIM_C1, SSIM_C2, SSIM_SIGMA, SSIM_WINDOW

# One pixel; smaller than the window; smaller than a stripe; several strips of columns; rows of several bands.
SIZES = [(1, 1), (3, 7), (40, 9), (11, 11), (5, 1200), (131, 70)]


def value_and_gradient(function, image: Tensor, *args) -> tuple[float, Tensor]:
    image = image.detach().clone().requires_grad_()
    loss = function(image, *args)
    (gradient,) = torch.autograd.grad(loss, image)
    return loss.item(), gradient


def test_twin_follows_the_definition():
    """Window by window in numpy, straight from the paper's formula, zeros outside the image."""
    image, target, _ = images(9, 14)
    a, b = image.double().numpy(), target.double().numpy() / 255
    distance = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * SSIM_SIGMA**2))
    window = (window / window.sum())[..., None]
    pad = ((SSIM_WINDOW // 2,) * 2,) * 2 + ((0, 0),)
    wide_a, wide_b = np.pad(a, pad), np.pad(b, pad)
    expected = np.empty_like(a)
    for i, j in np.ndindex(a.shape[:2]):
        pa, pb = (w[i : i + SSIM_WINDOW, j : j + SSIM_WINDOW] for w in (wide_a, wide_b))
        mean_a, mean_b = (window * pa).sum((0, 1)), (window * pb).sum((0, 1))
        var_a = (window * (pa - mean_a) ** 2).sum((0, 1))
        var_b = (window * (pb - mean_b) ** 2).sum((0, 1))
        covariance = (window * (pa - mean_a) * (pb - mean_b)).sum((0, 1))
        expected[i, j] = (
            (2 * mean_a * mean_b + SSIM_C1)
            * (2 * covariance + SSIM_C2)
            / ((mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2))
        )
    found = losses_reference.ssim_map(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-11)
    loss = losses_reference.photometric(torch.from_numpy(a), target, None, 0.3)
    assert loss.item() == pytest.approx(0.7 * np.abs(a - b).mean() + 0.3 * (1 - expected).mean(), abs=1e-12)
    # The mask leaves out pixels of both means, whose windows see the photograph there.
    keep = torch.zeros(9, 14, dtype=torch.uint8)
    keep[:, :7] = 1
    half = losses_reference.photometric(torch.from_numpy(a), target, keep, 0.0)
    assert half.item() == pytest.approx(np.abs(a - b)[:, :7].mean(), abs=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_twin_gradient_by_finite_differences(masked: bool):
    """Smooth: no pixel of the rendering is within 0.01 of the photograph, where |x - y| has its kink."""
    image, target, mask = images(8, 13)
    photo = target.double() / 255
    image = image.double()
    image = torch.where((image - photo).abs() < 0.01, photo + 0.02, image).requires_grad_()
    arguments = (target, mask if masked else None, 0.2)
    torch.autograd.gradcheck(
        lambda x: losses_reference.photometric(x, *arguments), image, eps=1e-6, rtol=1e-6, atol=1e-9
    )


def errors(image: Tensor, target: Tensor, mask: Tensor | None, weight: float) -> tuple[Tensor, Tensor]:
    """Relative errors (loss, gradient) of the kernel, and of the twin in the kernel's own precision.

    Differences below the rounding of one addition do not count.
    """
    truth, exact = value_and_gradient(losses_reference.photometric, image.double(), target, mask, weight)
    found = []
    for function in (losses.photometric, losses_reference.photometric):
        loss, gradient = value_and_gradient(function, image, target, mask, weight)
        off = (gradient.double() - exact).norm() / exact.norm().clamp(min=1e-30)
        found.append(torch.tensor([abs(loss - truth) / max(abs(truth), 1e-30), off]).clamp(min=2**-22))
    return found[0], found[1]


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_kernel_is_as_exact_as_float32_allows(size: tuple[int, int], masked: bool, weight: float):
    """Against the twin in float64 it errs no more than four times as much as the twin in float32."""
    image, target, mask = images(*size)
    ours, twins = errors(image, target, mask if masked else None, weight)
    assert (ours <= 4 * twins).all(), (ours, twins)


@settings(max_examples=60)
@given(height=st.integers(1, 40), width=st.integers(1, 70), seed=st.integers(0, 1000), masked=st.booleans())
def test_kernel_on_any_size(height: int, width: int, seed: int, masked: bool):
    image, target, mask = images(height, width, seed)
    truth = losses_reference.photometric(image.double(), target, mask if masked else None)
    found = losses.photometric(image, target, mask if masked else None)
    # Flat parts: the variance, a difference of sums of up to 2, is wrong by some 2^-22, over C2 = 9e-4.
    assert found.item() == pytest.approx(truth.item(), rel=1e-5, abs=2**-22 / SSIM_C2)


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_grey_images_with_their_borders(grey: float):
    """Two constant images: every window holds a share s of its weight inside the image, the rest is zero.

    Then mean = s a, E[a b] = s a b, so that SSIM has a closed form in s. Flat windows are where float32
    cancels most: the variance is the difference of sums of up to 2, over C2 = 9e-4.
    """
    height, width, other = 21, 30, 0.8
    image = torch.full((height, width, 3), grey)
    target = torch.full((height, width, 3), round(other * 255), dtype=torch.uint8)
    window = losses_reference.gaussian_window(torch.float64)
    inside = [
        torch.stack([window[max(0, 5 - i) : min(11, n + 5 - i)].sum() for i in range(n)])
        for n in (height, width)
    ]
    s = (inside[0][:, None] * inside[1][None])[..., None]
    a, b = grey, round(other * 255) / 255
    luminance = (2 * s * s * a * b + SSIM_C1) / (s * s * (a * a + b * b) + SSIM_C1)
    structure = (2 * (s - s * s) * a * b + SSIM_C2) / ((s - s * s) * (a * a + b * b) + SSIM_C2)
    expected = (1 - luminance * structure).mean()
    assert losses.photometric(image, target, None, 1.0).item() == pytest.approx(
        expected.item(), abs=2**-21 / SSIM_C2
    )
    loss, gradient = value_and_gradient(losses.photometric, image, target)
    assert math.isfinite(loss)
    assert gradient.isfinite().all()


def test_equal_images_cost_nothing():
    _, target, _ = images(30, 40)
    loss, gradient = value_and_gradient(losses.photometric, target.float() / 255, target)
    assert abs(loss) < 1e-6
    assert gradient.abs().max() * gradient.numel() < 1e-3


def test_same_bits_for_any_number_of_threads():
    image, target, mask = images(133, 700)
    first = None
    for threads in (1, 2, 3, 5):
        gradient = torch.full_like(image, math.nan)
        sums = _native.photometric(image, target, mask, gradient, 0.2, threads)
        if first is None:
            first = sums, gradient
        assert sums == first[0]
        assert torch.equal(gradient, first[1])


def test_masked_pixels_do_not_matter():
    image, target, mask = images(30, 40)
    loss, gradient = value_and_gradient(losses.photometric, image, target, mask)
    assert (gradient[mask == 0] == 0).all()
    assert (gradient[mask != 0] != 0).any(-1).all()
    spoiled = torch.where(mask[..., None] == 0, torch.nan, image)
    again, gradient_again = value_and_gradient(losses.photometric, spoiled, target, mask)
    assert again == loss
    assert torch.equal(gradient_again, gradient)
    nothing, zero = value_and_gradient(losses.photometric, image, target, torch.zeros_like(mask))
    assert nothing == 0
    assert (zero == 0).all()


def test_not_a_number_shows():
    image, target, _ = images(30, 40)
    image[20, 20, 1] = torch.nan
    assert math.isnan(losses.photometric(image, target).item())


def test_factor_and_layout():
    """The gradient is that of the sum the loss takes part in; a transposed image is as good as any."""
    image, target, _ = images(20, 30)
    _, gradient = value_and_gradient(losses.photometric, image, target)
    _, doubled = value_and_gradient(lambda x: 2 * losses.photometric(x, target), image)
    assert torch.equal(doubled, 2 * gradient)
    planar = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    _, same = value_and_gradient(losses.photometric, planar, target)
    assert torch.equal(same, gradient)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa: str, tmp_path):
    """The builds for older machines, in a process of their own as the choice is made once."""
    image, target, mask = images(37, 600)
    expected = value_and_gradient(losses.photometric, image, target, mask)
    torch.save((image, target, mask, expected), tmp_path / "case.pt")
    script = f"""
import torch
from splat import _native
from splat.training import losses
if _native.isa() != {isa!r}:
    raise SystemExit(77)
image, target, mask, (loss, gradient) = torch.load({str(tmp_path / "case.pt")!r})
found = losses.photometric(image.requires_grad_(), target, mask)
found.backward()
# Contraction of products and sums may differ, rounding with it.
assert abs(found.item() - loss) < 1e-6, (found.item(), loss)
off = (image.grad - gradient).norm() / gradient.norm()
assert off < 1e-5, off
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "SPLAT_ISA": isa})
    if done.returncode == 77:
        pytest.skip(f"this machine does not run the {isa} kernels")
    assert done.returncode == 0


def test_scores():
    _, target, mask = images(30, 40)
    photo = target.double() / 255
    assert losses.psnr(photo, target) == math.inf
    assert losses.ssim(photo, target) == pytest.approx(1, abs=1e-12)
    assert losses.psnr(photo + 0.1, target) == pytest.approx(20, abs=1e-9)
    spoiled = torch.where(mask[..., None] == 0, photo + 0.5, photo + 0.01)
    assert losses.psnr(spoiled, target, mask) == pytest.approx(40, abs=1e-9)
    loss = losses_reference.photometric(photo + 0.1, target, None, 1.0)
    assert losses.ssim(photo + 0.1, target) == pytest.approx(1 - loss.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("image", "target", "mask", "message"),
    [
        (torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.uint8), None, r"image must be \[H, W, 3\]"),
        (torch.zeros(4, 5, 3), torch.zeros(5, 4, 3, dtype=torch.uint8), None, "of one shape"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 5, 3), None, "target must be uint8"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 5, 3, dtype=torch.uint8), torch.ones(4, 5), "mask must be"),
    ],
)
def test_refusals(image: Tensor, target: Tensor, mask: Tensor | None, message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        losses.photometric(image, target, mask)
