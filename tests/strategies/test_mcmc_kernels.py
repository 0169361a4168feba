"""Noise and relocation: the twins against closed forms, the kernels against the twins."""

from __future__ import annotations

import math

import pytest
import torch
from scenes import camera
from scipy.integrate import quad
from scipy.spatial.transform import Rotation

from splat.core import Gaussians
from splat.raster import RenderOptions, render
from splat.strategies import kernels, kernels_reference
from splat.strategies.constants import RELOCATION_MAX


def noise_case(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """means, quats (of any length), log_scales, logit_opacities (from nothing to opaque), eta."""
    g = torch.Generator().manual_seed(7)
    case = (
        torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g) * 3,
        torch.randn(count, 3, generator=g) - 2,
        torch.linspace(-12, 4, count),
        torch.randn(count, 3, generator=g),
    )
    return tuple(t.to(dtype) for t in case)


def test_noise_is_covariance_times_eta():
    """With scipy's rotations and the formula as the paper writes it."""
    means, quats, log_scales, logits, eta = noise_case(50, torch.float64)
    moved = means.clone()
    kernels.add_noise_(moved, quats, log_scales, logits, eta, gain=5e5 * 1.6e-4)
    rotation = torch.from_numpy(Rotation.from_quat(quats[:, [1, 2, 3, 0]].numpy()).as_matrix())
    covariance = rotation @ torch.diag_embed(torch.exp(log_scales) ** 2) @ rotation.mT
    opacity = 1 / (1 + torch.exp(-logits))
    sigmoid = 1 / (1 + torch.exp(-100 * ((1 - opacity) - 0.995)))
    expected = torch.einsum("nij,nj->ni", covariance, eta) * sigmoid[:, None] * 5e5 * 1.6e-4
    # The constant 0.005 is a float32, wrong by 1.2e-10: 1.2e-8 in the sigmoid's argument.
    torch.testing.assert_close(moved - means, expected, rtol=2e-8, atol=1e-12)


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_native_noise(count: int):
    case = noise_case(count, torch.float32)
    exact = [t.double() for t in case]
    means = case[0].clone()
    kernels.add_noise_(means, *case[1:], gain=80.0)
    kernels_reference.add_noise_(exact[0], *exact[1:], gain=80.0)
    moved, expected = means.double() - case[0], exact[0] - case[0]
    # A rotation, a product of three factors, and exponentials, one of them of 100 times an opacity: some
    # 100 roundings of the largest component; and the rounding of the sum with the mean.
    size = expected.norm(dim=1, keepdim=True)
    assert ((moved - expected).abs() <= 2**-24 * (100 * size + 2 * case[0].abs() + 2 * size)).all()


def test_noise_of_a_zero_quaternion_is_unrotated():
    means, _, log_scales, logits, eta = noise_case(20, torch.float32)
    plain, zero = means.clone(), means.clone()
    kernels.add_noise_(plain, torch.tensor([1.0, 0, 0, 0]).repeat(20, 1), log_scales, logits, eta, 80.0)
    kernels.add_noise_(zero, torch.zeros(20, 4), log_scales, logits, eta, 80.0)
    assert torch.equal(plain, zero)


def scale_factor(opacity: float, count: int) -> float:
    """o / integral, by quadrature. The compound of n Gaussians of opacity p along a line is
    1 - (1 - p exp(-x^2 / 2 s^2))^n; one of opacity o has the integral o s sqrt(2 pi)."""
    p = 1 - (1 - opacity) ** (1 / count)
    compound = quad(lambda x: 1 - (1 - p * math.exp(-x * x / 2)) ** count, -12, 12, epsabs=1e-12)[0]
    return opacity * math.sqrt(2 * math.pi) / compound


@pytest.mark.parametrize("count", [1, 2, 3, 10, 51])
@pytest.mark.parametrize("opacity", [0.006, 0.1, 0.5, 0.9, 0.99])
def test_relocation_keeps_centre_and_integral(opacity: float, count: int):
    expected = 1 - (1 - opacity) ** (1 / count), scale_factor(opacity, count)
    arguments = torch.tensor([opacity], dtype=torch.float64), torch.tensor([count])
    exact = kernels.relocation(*arguments)
    assert [t.item() for t in exact] == pytest.approx(expected, rel=1e-9)
    native = kernels.relocation(arguments[0].float(), arguments[1])
    # The opacity is rounded on the way in, magnified by at most 1 / (1 - o) = 100, and on the way out.
    assert [t.item() for t in native] == pytest.approx(expected, rel=102 * 2**-24)


def test_relocation_of_all_at_once():
    """The kernel, over many rows; counts above the most count as the most; one stays what it is."""
    opacities = torch.rand(3000, generator=torch.Generator().manual_seed(2)) * 0.98 + 0.01
    counts = torch.arange(3000) % 60 + 1
    new, factor = kernels.relocation(opacities, counts)
    sample = torch.arange(0, 3000, 37)
    expected = kernels_reference.relocation(
        opacities[sample].double(), counts[sample].clamp(max=RELOCATION_MAX)
    )
    # Rounded on the way out alone.
    torch.testing.assert_close(new[sample].double(), expected[0], rtol=2**-24, atol=0)
    torch.testing.assert_close(factor[sample].double(), expected[1], rtol=2**-24, atol=0)
    alone = counts == 1
    torch.testing.assert_close(new[alone], opacities[alone], rtol=2**-23, atol=0)
    torch.testing.assert_close(factor[alone], torch.ones_like(factor[alone]), rtol=2**-23, atol=0)


def test_relocation_of_an_opaque_one_is_finite():
    new, factor = kernels.relocation(torch.ones(2), torch.tensor([1, 51]))
    assert (new < 1).all()
    assert (factor > 0).all()
    assert factor.isfinite().all()


@pytest.mark.parametrize("count", [2, 5])
def test_relocated_copies_look_like_the_one(count: int):
    """A wide Gaussian, drawn by the reference as one and as `count` relocated copies in its place.

    The peak is the same but for pixel centres beside it, and so is the integral along a line through it;
    the picture as a whole differs far less than with copies that keep the opacity, or that share it out
    but keep the scale.
    """
    one = Gaussians(
        means=torch.zeros(1, 3, dtype=torch.float64),
        quats=torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        log_scales=torch.full((1, 3), math.log(0.4), dtype=torch.float64),
        logit_opacities=torch.tensor([0.0], dtype=torch.float64),
        sh=torch.full((1, 1, 3), 1.0, dtype=torch.float64),
    )

    def picture(g: Gaussians) -> torch.Tensor:
        return render(g, camera(60, 50), RenderOptions(backend="reference")).image

    def copies(opacity: torch.Tensor, factor: float) -> Gaussians:
        many = one.select(torch.zeros(count, dtype=torch.int64))
        many.logit_opacities = torch.logit(opacity).expand(count)
        many.log_scales = many.log_scales + math.log(factor)
        return many

    new, factor = kernels.relocation(one.opacities(), torch.tensor([count]))
    truth = picture(one)
    off = {
        name: ((picture(g) - truth).abs().sum() / truth.sum()).item()
        for name, g in {
            "relocated": copies(new, factor.item()),
            "copied": copies(one.opacities(), 1.0),
            "shared": copies(new, 1.0),
        }.items()
    }
    assert off["relocated"] < 0.6 * off["shared"] < 0.6 * off["copied"], off
    # Along the line of pixels through the centre (27, 27.5) the integral is the same but for the tails
    # under 1/255, which hold less than 1% of it.
    found = picture(copies(new, factor.item()))
    assert found.max().item() == pytest.approx(truth.max().item(), rel=2e-3)
    assert found[27].sum().item() == pytest.approx(truth[27].sum().item(), rel=0.01)
