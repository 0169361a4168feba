"""How many Gaussians a run will have at each step, where its density control can tell beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from splat.strategies.mcmc import Mcmc
from splat.strategies.spectral import Spectral
from splat.training.strategy import Strategy


def expected_counts(strategies: Sequence[Strategy], steps: int, start: int, cap: int) -> list[int] | None:
    """[steps] Gaussians at each step; None where the scene decides.

    MCMC grows by a fixed factor at fixed steps, up to the cap. Adaptive density control, and anything that prunes,
    looks at the scene.
    """
    density = next(strategy for strategy in strategies if strategy.controls_density)
    if not isinstance(density, Mcmc) or any(isinstance(strategy, Spectral) for strategy in strategies):
        return None
    counts, count = [], start
    for step in range(steps):
        counts.append(count)
        if density.refines_at(step + 1, steps):
            count = max(count, min(cap, int(density.config.growth * count)))
    return counts
