"""Which device a run takes, and a run on the GPU's kernels: emulated, against the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulated_backend import EmulatedBackend

from splat import _emulated
from splat.core import DeviceError
from splat.core.gaussians import PARAMETERS
from splat.raster import registry
from splat.strategies.registry import build
from splat.training import gpu
from splat.training.session import Session, choose_device

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


@pytest.mark.parametrize("density", ["mcmc", "default"])
def test_emulated_training_follows_the_cpu(
    density: str, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps of either preset with nothing but the GPU's kernels: rasterizer, loss, noise, statistics.

    Adam's first steps are as long as the rate whatever the gradient, so that a gradient that rounding decides
    moves its parameter either way: the scene has no round Gaussians, whose rotations have none but such.
    """

    def trained(session: Session) -> dict[str, torch.Tensor]:
        for _ in range(6):
            session.trainer.step()
        g = session.trainer.ctx.gaussians
        values = {name: getattr(g, name) for name in PARAMETERS}
        return {name: value.clone() for name, value in (values | session.trainer.ctx.edits.state).items()}

    def session() -> Session:
        made = start(build([density]), backend="cpu")
        g = made.trainer.ctx.gaussians
        g.log_scales += 0.4 * torch.randn(g.log_scales.shape, generator=torch.Generator().manual_seed(1))
        return made

    before = {name: getattr(session().trainer.ctx.gaussians, name).clone() for name in PARAMETERS}
    expected = trained(session())

    emulated = session()
    backend = EmulatedBackend()
    emulated.trainer.backend = backend
    emulated.trainer._deferred = backend.deferred
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "kernels_for", lambda *tensors: _emulated)
        # What the dispatchers would take first on CPU tensors.
        patch.setattr("splat.strategies.kernels._native_fits", lambda *tensors: False)
        patch.setattr(
            "splat.training.trainer.photometric",
            lambda image, target, mask, weight: gpu.photometric(_emulated, image, target, mask, weight),
        )
        got = trained(emulated)

    assert set(got) == set(expected)
    for name, value in expected.items():
        moved = (value - before[name]).abs().max() if name in before else value.abs().max()
        off = (got[name] - value).abs()
        assert moved > 0
        assert off.max() <= ROUNDING * moved, name
