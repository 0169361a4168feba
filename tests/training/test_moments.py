"""Adam with quantized moments: the formats, their rounding, and that training loses nothing by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from emulated_backend import EmulatedBackend
from hostile import camera, ordinary
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.raster import RenderOptions, render
from splat.raster.native import Deferred
from splat.strategies.registry import build
from splat.training import memory, moments
from splat.training.optim import BETAS, EPS, GaussianAdam, Rates
from splat.training.session import Session

RATES = {name: 1e-3 for name in (*PARAMETERS[:4], "sh0", "shN")}


def held(name: str, first: Tensor, second: Tensor, count: int = 1) -> tuple[Tensor, ...]:
    stored = moments.zeros(name, first, "quantized")
    moments.store(name, stored, first, second, count)
    return stored


def samples(*shape: int) -> tuple[Tensor, Tensor]:
    """Moments over six decades, with zeros."""
    g = torch.Generator().manual_seed(1)
    first = torch.randn(*shape, generator=g) * 10 ** (6 * torch.rand(*shape, generator=g) - 8)
    first[::5] = 0
    return first, first.square() * torch.rand(*shape, generator=g)


def test_bytes_are_what_the_tensors_hold() -> None:
    scene = ordinary(10)
    for kind in ("full", "quantized"):
        adam = GaussianAdam(scene.clone(), Rates(), 1.0, 10, kind)  # type: ignore[arg-type]
        total = sum(moment.nbytes for stored in adam.moments.values() for moment in stored)
        assert total == 10 * moments.bytes_per_gaussian(16, kind)  # type: ignore[arg-type]
    assert moments.bytes_per_gaussian(16, "full") == 472
    assert moments.bytes_per_gaussian(16, "quantized") == 148
    assert memory.bytes_per_gaussian(16, "quantized") < memory.bytes_per_gaussian(16)


@pytest.mark.parametrize("name", ["means", "sh"])
def test_what_is_stored_is_near_and_right_in_the_mean(name: str) -> None:
    """Within one unit in the last place, and unbiased: the mean of n roundings errs by unit / sqrt(4 n) at most in the
    standard deviation; five of those."""
    first, second = samples(*((40, 3) if name == "means" else (40, 16, 3)))
    tries = 400
    sums = torch.zeros(2, *first.shape, dtype=torch.float64)
    if name == "means":
        units = [2.0**-7 * x.abs() for x in (first, second.sqrt())]
        units[1] = 2.0**-7 * second
    else:
        most = [x.abs().flatten(1).amax(1).view(-1, 1, 1) / 1.9296875 for x in (first, second.sqrt())]
        # A binade of sixteen or thirty-two values, of x + 2^-7.
        units = [
            (x.abs() + m * 2**-7) * 2.0**-bits
            for x, m, bits in ((first, most[0], 4), (second.sqrt(), most[1], 5))
        ]
    for count in range(1, tries + 1):
        stored = held(name, first, second, count)
        got = moments.load(name, stored)
        read = [got[0], got[1] if name == "means" else got[1].sqrt()]
        expected = [first, second if name == "means" else second.sqrt()]
        for k in range(2):
            off = (read[k] - expected[k]).abs()
            # Where a second moment is too small for its block it counts as two units of the lowest binade.
            floor = 2 * most[1] * 2**-12 if name == "sh" and k == 1 else 0.0
            assert (off <= units[k] * (1 + 1e-6) + floor + 1e-37).all()
            sums[k] += read[k].double()
    for k, expected_mean in enumerate(expected):
        bound = 5 * units[k].double() / (4 * tries) ** 0.5 + 1e-6 * expected_mean.abs()
        if name == "sh" and k == 1:
            bound = torch.where(expected_mean < 4 * most[1] * 2**-12, 1e9, bound)  # lifted to the floor
        assert ((sums[k] / tries - expected_mean).abs() <= bound + 1e-37).all(), k


def test_an_unseen_gaussian_decays_by_its_scale_alone() -> None:
    """The codes of a block that only shrinks stay: a thousand steps without a gradient lose nothing."""
    first, second = samples(8, 16, 3)
    stored = held("sh", first, second)
    codes = stored[1].clone()
    start = moments.load("sh", stored)[1]
    value, zero = torch.zeros(8, 16, 3), torch.zeros(8, 16, 3)
    for count in range(2, 1002):
        moments.adam_step("sh", value, zero, stored, 0.0, count, BETAS, EPS)
    assert torch.equal(stored[1], codes)
    expected = start * BETAS[1] ** 1000
    torch.testing.assert_close(moments.load("sh", stored)[1], expected, rtol=1000 * 2**-22, atol=0)


def test_no_quotient_explodes() -> None:
    """A second moment far below its block's largest is never rounded to zero under a first one that is not."""
    first = torch.full((4, 16, 3), 1e-9)
    first[:, 0] = 1e-2
    second = first.square()
    for count in range(1, 50):
        m, v = moments.load("sh", held("sh", first, second, count))
        assert (v > 0).all()
        assert (m.abs() / v.sqrt()).max() <= 2 * 1.1


@pytest.mark.parametrize("coefficients", [1, 4, 16])
def test_emulated_fused_step_is_that_of_the_twin(coefficients: int) -> None:
    """Three fused steps of the GPU's kernels against dense ones in torch, with gradients of the same render.

    Both round by the same random bits; where their float32 sums differ in the last place a code may fall on either
    side, by one unit.
    """
    backend = EmulatedBackend()
    fused = ordinary(150, coefficients)
    fused.means[::5, 2] -= 50  # never seen
    fused.sh = fused.sh.half()
    dense = replace(fused.clone(), sh=fused.sh.float())
    options = {"betas": BETAS, "eps": EPS}
    state = {name: moments.zeros(name, t, "quantized") for name, t in dense.named_tensors()}
    twin = GaussianAdam(dense, Rates(), 1.0, 10, "quantized")
    penalties = {"opacity": 0.01, "scale": 0.02}
    rates = RATES | {"sh0": 2e-3}
    for count in range(1, 4):
        deferred = Deferred()
        backend.render(fused, camera(), RenderOptions(deferred=deferred)).image.square().mean().backward()
        deferred.step(fused, state, rates, step=count, penalties=penalties, **options)
        dense.requires_grad_()
        backend.render(dense, camera(), RenderOptions()).image.square().mean().backward()
        twin.step(rates, penalties)
        for _, value in dense.named_tensors():
            value.grad = None
        dense.requires_grad_(False)
    for name in PARAMETERS:
        off = (getattr(fused, name) - getattr(dense, name)).abs()
        rate = rates["sh0" if name == "sh" else name]
        assert off.median() <= 1e-3 * rate, name
        assert torch.quantile(off.flatten(), 0.98) <= 0.2 * rate, name
        for got, expected in zip(
            moments.load(name, state[name]), moments.load(name, twin.moments[name]), strict=True
        ):
            assert (got - expected).norm() <= 0.02 * expected.norm(), name
    unseen = state["sh"][0][::5]
    assert not unseen.any()


def test_the_cpu_backend_says_that_its_fused_step_has_no_such_moments() -> None:
    scene, deferred = ordinary(5), Deferred()
    render(scene, camera(), RenderOptions(deferred=deferred, backend="cpu")).image.sum().backward()
    state = {name: moments.zeros(name, t, "quantized") for name, t in scene.named_tensors()}
    with pytest.raises(UsageError, match="float32 alone"):
        deferred.step(scene, state, RATES, step=1)


def test_training_loses_nothing(start: Callable[..., Session]) -> None:
    """A whole run with growth and relocation on the CPU: its score lies within the spread of full runs."""

    def score(kind: str, seed: int) -> float:
        options: dict[str, Any] = {"refine_start": 20, "refine_every": 20, "growth": 1.2}
        session = start(
            build(["mcmc"], {"mcmc": options}),
            backend="cpu",
            moments=kind,
            seed=seed,
            steps=250,
            max_gaussians=60,
        )
        for _ in range(250):
            session.trainer.step()
        return session.score(0.0).psnr

    full = [score("full", seed) for seed in range(3)]
    quantized = [score("quantized", seed) for seed in range(3)]
    spread = max(full) - min(full)
    assert sum(quantized) / 3 >= sum(full) / 3 - max(spread, 0.1)


def test_resumes_bit_for_bit_and_refuses_the_other_kind(start: Callable[..., Session]) -> None:
    def session(state: Any = None, kind: str = "quantized") -> Session:
        return start(build(["mcmc"]), state=state, backend="cpu", moments=kind)

    first = session()
    for _ in range(5):
        first.trainer.step()
    saved = first.state_dict()
    saved["trainer"]["main"]["optimizer"]["moments"] = {
        name: [t.clone() for t in stored]
        for name, stored in saved["trainer"]["main"]["optimizer"]["moments"].items()
    }
    saved["trainer"]["main"]["gaussians"] = {
        name: t.clone() for name, t in saved["trainer"]["main"]["gaussians"].items()
    }
    again = session(saved)
    for made in (first, again):
        for _ in range(5):
            made.trainer.step()
    for (name, a), (_, b) in zip(
        first.trainer.ctx.gaussians.named_tensors(), again.trainer.ctx.gaussians.named_tensors(), strict=True
    ):
        assert torch.equal(a, b), name
    with pytest.raises(UsageError, match="quantized moments"):
        session(saved, kind="full")


def test_edits_move_the_scales_along() -> None:
    scene = replace(ordinary(6))
    from splat.training.context import Field

    field = Field("main", scene, Rates(), 1.0, 10, "quantized")
    for name, stored in field.optimizer.moments.items():
        moments.store(name, stored, *samples(*getattr(scene, name).shape), 1)
    before = {name: moments.load(name, stored) for name, stored in field.optimizer.moments.items()}
    field.edits.permute(torch.tensor([5, 4, 3, 2, 1, 0]))
    for name, stored in field.optimizer.moments.items():
        for got, expected in zip(moments.load(name, stored), before[name], strict=True):
            assert torch.equal(got, expected.flip(0))
    field.edits.copy(torch.tensor([1]))
    for name, stored in field.optimizer.moments.items():
        assert not any(moment[6].any() for moment in moments.load(name, stored))
    assert isinstance(scene, Gaussians)
