"""Gaussians taken out by hand: the right ones, whatever training did since they were chosen; and back again."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from fake_run import context, gaussians
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import UsageError
from splat.link import Snapshot
from splat.training.byhand import ByHand


def snapshot(ctx, by_hand) -> Snapshot:
    scene = ctx.gaussians.detach().clone()
    return Snapshot(0, 1, scene, 0, math.nan, rows=by_hand.follow())


def train_on(ctx, seed: int) -> list[int]:
    """Some edits as strategies make them; the numbers that the rows of now had before, -1 for new ones."""
    g = torch.Generator().manual_seed(seed)
    numbers = list(range(len(ctx.gaussians)))
    for _ in range(4):
        n = len(ctx.gaussians)
        some = torch.randperm(n, generator=g)[: max(1, n // 5)]
        left = [number for row, number in enumerate(numbers) if row not in some.tolist()]
        kind = int(torch.randint(5, (1,), generator=g))
        if kind == 0:
            ctx.edits.copy(some)
            numbers += [-1] * len(some)
        elif kind == 1:
            ctx.edits.split(some, {"means": torch.rand(2 * len(some), 3, generator=g)})
            numbers = left + [-1] * 2 * len(some)
        elif kind == 2 and n > 20:
            ctx.edits.remove(some)
            numbers = left
        elif kind == 3:
            order = torch.randperm(n, generator=g)
            ctx.edits.permute(order)
            numbers = [numbers[row] for row in order.tolist()]
        elif kind == 4:
            source = torch.tensor([row for row in range(n) if row not in some.tolist()])[: len(some)]
            ctx.edits.relocate(some, source, {"means": torch.rand(len(some), 3, generator=g)})
            for row in some.tolist():
                numbers[row] = -1
    return numbers


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_the_right_ones_go(seed):
    """After any edits: who is left of the chosen is gone, and everybody else is there, in order."""
    ctx = context(gaussians(60))
    by_hand = ByHand(ctx.main)
    seen = snapshot(ctx, by_hand)
    chosen = torch.rand(60, generator=torch.Generator().manual_seed(seed)) < 0.4
    doomed = set(chosen.nonzero()[:, 0].tolist())
    numbers = train_on(ctx, seed)
    stay = torch.tensor([number not in doomed for number in numbers])
    expected = ctx.gaussians.means[stay]
    if bool(stay.all()):
        with pytest.raises(UsageError, match="none of the chosen"):
            by_hand.remove(chosen, seen)
    else:
        by_hand.remove(chosen, seen)
    assert torch.equal(ctx.gaussians.means, expected)


def test_restored_as_they_were_with_zero_moments():
    ctx = context(gaussians(30))
    ctx.declare("weight", 0.5)
    by_hand = ByHand(ctx.main)
    seen = snapshot(ctx, by_hand)
    before = {name: value.clone() for name, value in ctx.gaussians.named_tensors()}
    chosen = torch.zeros(30, dtype=torch.bool)
    chosen[[3, 17, 29]] = True
    by_hand.remove(chosen, seen)
    assert len(ctx.gaussians) == 27
    by_hand.restore(room=100)
    order = torch.cat([(~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]])
    for name, value in ctx.gaussians.named_tensors():
        assert torch.equal(value, before[name][order]), name
    first, second = ctx.optimizer.moments["means"]
    assert not first[27:].any()
    assert not second[27:].any()
    assert first[:27].all()
    with pytest.raises(UsageError, match="nothing was removed"):
        by_hand.restore(room=100)


def test_what_cannot_be_done_is_said_and_changes_nothing():
    ctx = context(gaussians(10))
    by_hand = ByHand(ctx.main)
    seen = snapshot(ctx, by_hand)
    everything = torch.ones(10, dtype=torch.bool)
    with pytest.raises(UsageError, match="at least one must remain"):
        by_hand.remove(everything, seen)
    with pytest.raises(UsageError, match="draws other Gaussians"):
        by_hand.remove(everything, Snapshot(0, 1, seen.gaussians, 0, math.nan))
    by_hand.remove(torch.arange(10) < 4, seen)
    with pytest.raises(UsageError, match="may have 3 more"):
        by_hand.restore(room=3)
    by_hand.restore(room=4)
    assert len(ctx.gaussians) == 10


def test_a_snapshot_that_nobody_holds_is_not_followed():
    ctx = context(gaussians(10))
    by_hand = ByHand(ctx.main)
    seen = [snapshot(ctx, by_hand) for _ in range(5)]
    assert len(by_hand._followed) == 5
    del seen[1:]
    gc.collect()
    assert len(by_hand._followed) == 1
