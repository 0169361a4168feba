"""Ordering the scene along a Morton curve changes where Gaussians lie in memory, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from splat.codecs.quantize.order import morton_order
from splat.core import UsageError
from splat.strategies.registry import build
from splat.training.config import TrainConfig
from splat.training.edits import Edit
from splat.training.session import Session


def test_everything_moves_along_and_training_goes_on_as_without(start: Callable[..., Session]) -> None:
    edits: list[Edit] = []
    sessions = {}
    for every in (0, 3):
        sessions[every] = session = start(build(["default"]), backend="cpu", reorder=every)
        if every:
            session.trainer.ctx.edits.listeners.append(edits.append)
        for _ in range(5):
            session.trainer.step()
    plain, ordered = sessions[0].trainer.ctx, sessions[3].trainer.ctx
    assert [edit.kind for edit in edits] == ["permute"]
    order = edits[0].source
    assert not torch.equal(order, order.sort().values)
    assert torch.equal(order.sort().values, torch.arange(len(plain.gaussians)))
    pairs = [
        *((name, t, getattr(ordered.gaussians, name)) for name, t in plain.gaussians.named_tensors()),
        *((name, t, ordered.edits.state[name]) for name, t in plain.edits.state.items()),
        *(
            (name, a, b)
            for name, held in plain.optimizer.moments.items()
            for a, b in zip(held, ordered.optimizer.moments[name], strict=True)
        ),
    ]
    # The kernels take each Gaussian's sums in the same order wherever it lies.
    for name, a, b in pairs:
        torch.testing.assert_close(b, a[order], rtol=1e-5, atol=1e-7, msg=name)


def test_it_is_the_curve_of_the_moment(start: Callable[..., Session]) -> None:
    session = start(build(["default"]), backend="cpu", reorder=2)
    for _ in range(2):
        session.trainer.step()
    means = session.trainer.ctx.gaussians.means
    assert torch.equal(morton_order(means), torch.arange(len(means)))


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="reorder"):
        TrainConfig(reorder=-1)
