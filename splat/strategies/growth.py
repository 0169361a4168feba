"""How many Gaussians a run will have at each step, where its density control can tell beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from splat.training.strategy import Strategy


def expected_counts(strategies: Sequence[Strategy], steps: int, start: int, cap: int) -> list[int] | None:
    """[steps] Gaussians at each step, at most; None where the scene decides."""
    counts, now = [], (start, cap)
    for taken in range(1, steps + 1):
        counts.append(now[0])
        for strategy in strategies:
            after = strategy.forecast(*now, taken, steps)
            if after is None:
                return None
            now = after
    return counts
