"""Adam, native and torch, against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from splat import _native
from splat.training.optim import BETAS, EPS, adam_step

ROUNDING = 2**-24


def gradients(steps: int, count: int) -> Tensor:
    """[steps, count] of every size, with rows that are seen rarely or never."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(steps, count, generator=generator)
    values *= 10 ** torch.randint(-12, 3, (count,), generator=generator)
    values[torch.rand(steps, count, generator=generator) < 0.5] = 0
    values[:, ::7] = 0
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (37,), (123, 3), (40, 16, 3)])
def test_steps_as_torch_does(dtype: torch.dtype, shape: tuple[int, ...]):
    """Sixty steps. float32 rounds the parameter once a step, the direction (at most 1 / sqrt(1 - beta2) of
    the rate) in a handful of operations, and the moments in a handful more, which average out."""
    steps, lr = 60, 0.01
    start = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    truth = start.double().requires_grad_()
    optimizer = torch.optim.Adam([truth], lr=lr, betas=BETAS, eps=EPS)
    value, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step, row in enumerate(gradients(steps, start.numel()), 1):
        gradient = row.view(shape)
        truth.grad = gradient.double()
        optimizer.step()
        adam_step(value, gradient.to(dtype), first, second, lr, step)
    state = optimizer.state[truth]
    allowed = steps * ROUNDING * (start.abs().double() + 1 + 16 * lr / (1 - BETAS[1]) ** 0.5)
    assert ((value - truth.detach()).abs() <= allowed).all()
    # Each step rounds the moments a few times, relative to the largest they have been; below the normal
    # numbers they are flushed to zero.
    largest = gradients(steps, start.numel()).abs().amax(0).view(shape).double()
    for ours, name, power in ((first, "exp_avg", 1), (second, "exp_avg_sq", 2)):
        off = (ours.double() - state[name]).abs()
        assert (off <= 4 * steps * ROUNDING * largest**power + 1e-37).all()
    untouched = torch.zeros(start.numel(), dtype=torch.bool)
    untouched[::7] = True
    assert torch.equal(value.flatten()[untouched], start.flatten()[untouched])


def test_same_bits_for_any_number_of_threads():
    start = torch.randn(100_003, generator=torch.Generator().manual_seed(5))
    results = []
    for threads in (1, 2, 3):
        value, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        for step, row in enumerate(gradients(2, start.numel()), 1):
            _native.adam_step(value, row, first, second, 0.01, step, *BETAS, EPS, threads)
        results.append((value, first, second))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strided_tensors_are_stepped_in_place():
    whole = torch.ones(20, 4)
    column, first, second = whole[:, 1], torch.zeros(20), torch.zeros(20)
    adam_step(column, torch.full((20,), 2.0), first, second, 0.1, 1)
    assert whole[:, 1] == pytest.approx(0.9)
    assert (whole[:, [0, 2, 3]] == 1).all()
