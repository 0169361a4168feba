"""Which device a run takes, and a run on the GPU's kernels: emulated, against the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from splat import _emulated
from splat.core import DeviceError
from splat.core.gaussians import PARAMETERS
from splat.raster import registry
from splat.raster.cuda import Guard
from splat.strategies.registry import build
from splat.training import gpu
from splat.training.context import Context
from splat.training.session import Session, choose_device
from splat.training.strategy import Strategy

# A gradient sums up to 24 x 20 pixels, each term rounded; what Adam makes of it is of the same relative size.
# Four times that, as terms of both signs cancel.
ROUNDING = 4 * 480 * 2**-24


def test_the_device_is_one_that_a_backend_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, device: torch.device) -> Any:
        raise DeviceError("not built")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match="--device cuda: no NVIDIA GPU was found"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "backend", refuse)
        assert choose_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="--device cuda: not built"):
            choose_device("cuda")
    monkeypatch.setattr(registry, "backend", lambda name, device: object())
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda").type == "cuda"
    assert choose_device("cpu").type == "cpu"


class Swell(Strategy):
    """Doubles the Gaussians after the second step: more than there is room for."""

    name = "swell"
    config_type = type(None)

    def __init__(self) -> None:
        super().__init__(None)

    def runs_ahead(self, ctx: Context) -> bool:
        return ctx.step != 1

    def after_step(self, ctx: Context) -> None:
        if ctx.step == 1:
            ctx.edits.copy(torch.arange(len(ctx.gaussians)))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU are trained by the GPU's kernels where the backend is called emulated."""
    monkeypatch.setitem(registry._BACKENDS, "emulated", "emulated_backend:EmulatedBackend")
    registry._load.cache_clear()
    _emulated.seed(0)


@pytest.fixture
def on_kernels(emulated: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which every dispatcher takes the GPU's kernels."""

    @contextmanager
    def patched() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(gpu, "kernels_for", lambda *tensors: _emulated)
            # What the dispatchers would take first on CPU tensors.
            patch.setattr("splat.strategies.kernels._native_fits", lambda *tensors: False)
            patch.setattr(
                "splat.training.trainer.photometric",
                lambda image, target, mask, weight: gpu.photometric(_emulated, image, target, mask, weight),
            )
            yield

    return patched


@pytest.mark.parametrize(("density", "poses"), [("mcmc", False), ("default", False), ("mcmc", True)])
def test_emulated_training_follows_the_cpu(
    density: str,
    poses: bool,
    start: Callable[..., Session],
    on_kernels: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six steps of either preset with nothing but the GPU's kernels: rasterizer, loss, noise, statistics.

    Twice the device refuses steps for want of room, at the start and when the scene has swollen; the host hears
    of it some steps later. Adam's first steps are as long as the rate whatever the gradient, so that a gradient
    that rounding decides moves its parameter either way: the scene has no round Gaussians, whose rotations have
    none but such.
    """

    def trained(session: Session) -> dict[str, torch.Tensor]:
        for step in range(6):
            assert session.trainer.ctx.step == step
            session.trainer.step()
        session.trainer.settle()
        assert session.trainer.ctx.step == 6
        assert session.trainer.ctx.optimizer.count == 6
        g = session.trainer.ctx.gaussians
        values = {name: getattr(g, name) for name in PARAMETERS}
        if session.trainer.poses is not None:
            values["poses"] = session.trainer.poses.rows
        return {name: value.clone() for name, value in (values | session.trainer.ctx.edits.state).items()}

    def session(backend: str) -> Session:
        made = start([*build([density]), Swell()], backend=backend, poses=poses)
        g = made.trainer.ctx.gaussians
        g.log_scales += 0.4 * torch.randn(g.log_scales.shape, generator=torch.Generator().manual_seed(1))
        if made.trainer.poses is not None:
            rows = made.trainer.poses.rows
            rows += 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
        return made

    untouched = session("cpu").trainer
    before = {name: getattr(untouched.ctx.gaussians, name).clone() for name in PARAMETERS}
    expected = trained(session("cpu"))

    on_gpu, resumed = session("emulated"), []
    resume = Guard.resume
    monkeypatch.setattr(
        Guard, "resume", lambda guard: (resumed.append(on_gpu.trainer.ctx.step), resume(guard))
    )
    with on_kernels():
        got = trained(on_gpu)
    assert len(resumed) == 2
    assert on_gpu.trainer.ctx.guard.taken == 6
    # When it heard, it had gone on.
    assert resumed[1] > 2

    assert set(got) == set(expected)
    for name, value in expected.items():
        moved = value - before[name].repeat(2, *[1] * (value.dim() - 1)) if name in before else value
        if name == "poses":
            moved = value - untouched.poses.rows
        moved = moved.abs().max()
        off = (got[name] - value).abs()
        assert moved > 0
        assert off.max() <= ROUNDING * moved, name
