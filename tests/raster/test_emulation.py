"""The emulation of CUDA's execution model itself: it runs what is right and shows what is wrong."""

from __future__ import annotations

import pytest
import torch

from splat import _emulated


def run(which: str, blocks: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.arange(blocks * 96, dtype=torch.float32)
    out = torch.zeros(max(blocks, 4))
    _emulated.selftest(which, values.data_ptr(), out.data_ptr(), blocks)
    return values.view(blocks, 96).sum(1), out


@pytest.mark.parametrize("seed", range(5))
def test_emulated_shuffles_and_shared_memory(seed: int) -> None:
    _emulated.seed(seed)
    expected, got = run("block sums")
    assert torch.equal(got, expected)


def test_emulated_missing_barrier_shows() -> None:
    """With three warps whose order is random, some of 20 blocks go wrong at any seed worth the name."""
    for seed in range(5):
        _emulated.seed(seed)
        expected, got = run("missing barrier", blocks=20)
        assert not torch.equal(got, expected)


def test_emulated_threads_that_leave_do_not_take_part() -> None:
    _, out = run("early exit")
    assert torch.equal(out, torch.tensor([float(0x55555555)] * 3 + [32.0]))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("unreached barrier", "not all its threads reach"),
        ("diverged intrinsics", "different warp intrinsics"),
    ],
)
def test_emulated_misuse_is_an_error(which: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(which)
    expected, got = run("block sums")  # and the next launch is sound
    assert torch.equal(got, expected)
