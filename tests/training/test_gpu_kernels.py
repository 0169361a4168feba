"""The GPU's training kernels, emulated on the CPU: against the twins, as the CPU's kernels are tested.

The emulation runs the very sources that nvcc compiles, thread by thread, in an order that a seed shuffles
(cuda/tests/emulate.h); tolerances are those of the CPU's tests, for the same formulas in the same precision.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from photographs import images
from torch import Tensor

from splat import _emulated
from splat.core import DeviceError
from splat.strategies import kernels_reference
from splat.strategies.constants import RELOCATION_MAX
from splat.training import gpu, losses, losses_reference, optim
from splat.training.optim import BETAS, EPS

# One pixel; smaller than the window; one block exactly (98 elements of a row, 32 rows) and one more of each;
# several blocks both ways.
SIZES = [(1, 1), (3, 7), (32, 32), (33, 33), (70, 45)]


def emulated(image: Tensor, target: Tensor, mask: Tensor | None, weight: float = 0.2) -> Tensor:
    return gpu.photometric(_emulated, image, target, mask, weight)


def value_and_gradient(function, image: Tensor, *args) -> tuple[float, Tensor]:
    image = image.detach().clone().requires_grad_()
    loss = function(image, *args)
    (gradient,) = torch.autograd.grad(loss, image)
    return loss.item(), gradient


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_emulated_photometric_is_as_exact_as_float32_allows(
    size: tuple[int, int], masked: bool, weight: float
) -> None:
    """Against the twin in float64 it errs no more than four times as much as the twin in float32.

    Differences below the rounding of one addition do not count.
    """
    image, target, mask = images(*size)
    case = (target, mask if masked else None, weight)
    truth, exact = value_and_gradient(losses_reference.photometric, image.double(), *case)
    found = []
    for function in (emulated, losses_reference.photometric):
        loss, gradient = value_and_gradient(function, image, *case)
        off = (gradient.double() - exact).norm() / exact.norm().clamp(min=1e-30)
        found.append(torch.tensor([abs(loss - truth) / max(abs(truth), 1e-30), off]).clamp(min=2**-22))
    assert (found[0] <= 4 * found[1]).all(), found


def test_emulated_photometric_has_the_same_bits_in_any_order() -> None:
    image, target, mask = images(40, 50)
    results = []
    for seed in range(3):
        _emulated.seed(seed)
        results.append(value_and_gradient(emulated, image, target, mask))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])


def test_emulated_masked_pixels_do_not_matter() -> None:
    image, target, mask = images(40, 45)
    loss, gradient = value_and_gradient(emulated, image, target, mask)
    assert (gradient[mask == 0] == 0).all()
    assert (gradient[mask != 0] != 0).any(-1).all()
    spoiled = torch.where(mask[..., None] == 0, torch.nan, image)
    again, gradient_again = value_and_gradient(emulated, spoiled, target, mask)
    assert again == loss
    assert torch.equal(gradient_again, gradient)
    nothing, zero = value_and_gradient(emulated, image, target, torch.zeros_like(mask))
    assert nothing == 0
    assert (zero == 0).all()


def test_emulated_photometric_factor_layout_and_value_alone() -> None:
    """The gradient is that of the sum the loss takes part in; a transposed image is as good as any; without
    a gradient the value is the same."""
    image, target, _ = images(20, 30)
    loss, gradient = value_and_gradient(emulated, image, target, None)
    _, doubled = value_and_gradient(lambda x: 2 * emulated(x, target, None), image)
    assert torch.equal(doubled, 2 * gradient)
    planar = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    _, same = value_and_gradient(emulated, planar, target, None)
    assert torch.equal(same, gradient)
    assert emulated(image, target, None).item() == loss


def test_emulated_photometric_shows_what_is_not_a_number() -> None:
    image, target, _ = images(20, 30)
    image[10, 20, 1] = torch.nan
    loss, gradient = value_and_gradient(emulated, image, target, None)
    assert math.isnan(loss)
    assert gradient[10, 20, 1].isnan()


@pytest.mark.parametrize("count", [1, 37, 1024, 2051])
@pytest.mark.parametrize("offset", [0, 1])
def test_emulated_adam(count: int, offset: int) -> None:
    """Three steps against the CPU's kernel, with and without alignment for vectors: the two round alike but
    for a contraction in each moment and four operations of the direction, which is at most
    1 / sqrt(1 - beta2) = 32 rates long. What lies behind the arrays is left alone."""
    generator = torch.Generator().manual_seed(count)
    arrays = [torch.zeros(offset + count + 1) for _ in range(3)]
    value, first, second = (a[offset : offset + count] for a in arrays)
    value.copy_(torch.randn(count, generator=generator))
    others = [t.clone() for t in (value, first, second)]
    for step in range(1, 4):
        gradient = torch.randn(offset + count, generator=generator)[offset:]
        gradient[::7] = 0
        gpu.adam_step(_emulated, value, gradient, first, second, 0.01, step, BETAS, EPS)
        optim.adam_step(others[0], gradient, others[1], others[2], 0.01, step)
    torch.testing.assert_close(first, others[1], rtol=0, atol=3 * 2**-24 * 4)
    torch.testing.assert_close(second, others[2], rtol=3 * 2**-23, atol=0)
    torch.testing.assert_close(value, others[0], rtol=3 * 2**-24, atol=3 * 2**-22 * 32 * 0.01)
    assert not any(a[:offset].any() or a[-1] for a in arrays)
    assert not first[::7].any()


@pytest.mark.parametrize("coefficients", [1, 4, 16])
def test_emulated_adam_has_a_rate_of_its_own_for_the_head_of_every_row(coefficients: int) -> None:
    """To the bit what two calls make of head and rest, each at its rate."""
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(37, coefficients, 3, generator=generator)
    moments = torch.randn(37, coefficients, 3, generator=generator), torch.rand(37, coefficients, 3)
    gradient = torch.randn(37, coefficients, 3, generator=generator)
    parts = []
    for rows, lr in ((slice(0, 1), 0.02), (slice(1, None), 0.001)):
        part = [t[:, rows].clone(memory_format=torch.contiguous_format) for t in (value, gradient, *moments)]
        gpu.adam_step(_emulated, *part, lr, 5, BETAS, EPS)
        parts.append(part)
    gpu.adam_step(_emulated, value, gradient, *moments, 0.001, 5, BETAS, EPS, head_lr=0.02)
    for got, k in ((value, 0), (moments[0], 2), (moments[1], 3)):
        assert torch.equal(got, torch.cat([part[k] for part in parts], 1))


def test_emulated_kernels_change_nothing_while_the_guard_refuses() -> None:
    record = torch.zeros(_emulated.RECORD_BYTES, dtype=torch.uint8)
    guard = SimpleNamespace(record=record)
    g = torch.Generator().manual_seed(5)
    scene = [torch.randn(40, n, generator=g) for n in (3, 4, 3)]
    logits, eta = torch.full((40,), -8.0), torch.randn(40, 3, generator=g)
    sums, views, gradient = torch.zeros(40), torch.zeros(40), torch.randn(40, 2, generator=g)
    for refused in (True, False):
        record.view(torch.int32)[-1] = int(refused)  # the last member, of whose end nothing is padding
        before = scene[0].clone()
        gpu.add_noise_(_emulated, *scene, logits, eta, 10.0, guard)
        radii = torch.ones(40, dtype=torch.int32)
        gpu.accumulate_gradients_(_emulated, sums, views, gradient, radii, 10, 10, guard)
        assert torch.equal(scene[0], before) == refused
        assert bool(sums.any()) != refused
        assert bool(views.any()) != refused


def test_emulated_failures_of_the_device_name_the_kernel() -> None:
    with pytest.raises(DeviceError, match="the GPU failed in block_sums: more blocks than"):
        _emulated.selftest("too many blocks", 0, 0, 1)


@pytest.mark.parametrize("count", [1, 300])
def test_emulated_noise(count: int) -> None:
    """Against the twin in float64: some 100 roundings of the largest component, as on the CPU."""
    g = torch.Generator().manual_seed(7)
    case = [
        torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g) * 3,
        torch.randn(count, 3, generator=g) - 2,
        torch.linspace(-12, 4, count),
        torch.randn(count, 3, generator=g),
    ]
    means, exact = case[0].clone(), [t.double() for t in case]
    gpu.add_noise_(_emulated, means, *case[1:], gain=80.0)
    kernels_reference.add_noise_(exact[0], *exact[1:], gain=80.0)
    moved, expected = means.double() - case[0], exact[0] - case[0]
    size = expected.norm(dim=1, keepdim=True)
    assert expected.any()
    assert ((moved - expected).abs() <= 2**-24 * (100 * size + 2 * case[0].abs() + 2 * size)).all()


def test_emulated_relocation() -> None:
    """Rounded on the way out alone."""
    opacities = torch.rand(400, generator=torch.Generator().manual_seed(2)) * 0.98 + 0.01
    counts = (torch.arange(400) % RELOCATION_MAX + 1).int()
    new, factor = gpu.relocation(_emulated, opacities, counts)
    sample = torch.arange(0, 400, 9)
    expected = kernels_reference.relocation(opacities[sample].double(), counts[sample])
    torch.testing.assert_close(new[sample].double(), expected[0], rtol=2**-24, atol=0)
    torch.testing.assert_close(factor[sample].double(), expected[1], rtol=2**-24, atol=0)


def test_emulated_statistics() -> None:
    """The sum of two renders: each length is rounded in five operations, each sum once."""
    g = torch.Generator().manual_seed(3)
    sums, views = torch.rand(700, generator=g), torch.arange(700).float()
    exact = sums.double(), views.double()
    for _ in range(2):
        radii = torch.randint(0, 3, (700,), generator=g).int()
        gradient = torch.randn(700, 2, generator=g) * (radii > 0)[:, None]
        gpu.accumulate_gradients_(_emulated, sums, views, gradient, radii, 300, 201)
        kernels_reference.accumulate_gradients_(*exact, gradient.double(), radii, 300, 201)
    torch.testing.assert_close(sums.double(), exact[0], rtol=7 * 2**-24, atol=0)
    assert torch.equal(views.double(), exact[1])


def test_the_cpu_has_no_gpu_kernels() -> None:
    assert gpu.kernels_for(torch.zeros(1)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.cuda
class TestOnTheDevice:
    """The same, at full size, on the GPU."""

    @pytest.mark.parametrize("masked", [False, True])
    def test_photometric(self, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """As exact as float32 allows, in the sense of the emulated test."""
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the twin's convolutions
        image, target, mask = (t.cuda() for t in images(822, 1237))
        case = (target, mask if masked else None)
        truth, exact = value_and_gradient(losses_reference.photometric, image.double(), *case)
        found = []
        for function in (losses.photometric, losses_reference.photometric):
            loss, gradient = value_and_gradient(function, image, *case)
            off = (gradient.double() - exact).norm() / exact.norm()
            found.append(torch.tensor([abs(loss - truth) / abs(truth), off]).clamp(min=2**-22))
        assert (found[0] <= 4 * found[1]).all(), found

    def test_adam(self) -> None:
        start = torch.randn(1_000_003, device="cuda")
        ours = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        twin = [t.double() for t in ours]
        for step in range(1, 11):
            gradient = torch.randn_like(start)
            optim.adam_step(ours[0], gradient, ours[1], ours[2], 0.01, step)
            optim.adam_step(twin[0], gradient.double(), twin[1], twin[2], 0.01, step)
        # As in the emulated test, over ten steps.
        allowed = 10 * (2**-24 * start.abs().double() + 2**-22 * 32 * 0.01)
        assert ((ours[0] - twin[0]).abs() <= allowed).all()
