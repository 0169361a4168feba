"""What the viewer may take, and how coarse a picture that makes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest

from splat.viewer.budget import BURST, Budget, Ladder


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("share", "cost"), [(0.1, 0.02), (0.1, 0.7), (0.5, 0.05), (0.01, 0.3)])
def test_work_done_whenever_allowed_stays_within_the_share(share: float, cost: float) -> None:
    clock = Clock()
    budget = Budget(share, clock)
    spent = 0.0
    while clock.now < 600:
        wait = budget.wait()
        if wait > 0:
            clock.now += wait
            continue
        clock.now += cost
        spent += cost
        budget.spend(cost)
    assert spent <= share * clock.now + BURST + cost
    assert spent >= 0.9 * share * clock.now - BURST  # what is allowed may be used
    assert budget.spent == pytest.approx(spent)


def test_an_idle_budget_saves_up_one_burst_and_no_more() -> None:
    clock = Clock()
    budget = Budget(0.1, clock)
    clock.now = 1e6
    assert budget.saved == pytest.approx(BURST)
    budget.spend(BURST + 0.1)
    assert budget.wait() == pytest.approx(0.1 / 0.1)


def test_where_nothing_trains_nothing_waits_and_no_debt_remains() -> None:
    budget = Budget(0.1, Clock())
    budget.unlimited = True
    budget.spend(100.0)
    assert budget.wait() == 0
    budget.unlimited = False
    assert budget.wait() == 0


def test_a_larger_share_pays_a_debt_sooner() -> None:
    clock = Clock()
    budget = Budget(0.1, clock)
    budget.spend(1.0)
    assert budget.wait() == pytest.approx(10)
    budget.share = 0.5
    assert budget.wait() == pytest.approx(2)


def test_what_was_used_of_late_is_known() -> None:
    clock = Clock()
    budget = Budget(0.5, clock)
    for _ in range(600):
        clock.now += 0.1
        budget.spend(0.02)
    assert budget.used == pytest.approx(0.2, rel=0.02)
    clock.now += 60
    assert budget.used < 0.001


FULL = (960, 540)


def drawn(ladder: Ladder, seconds: float, cost: Callable[[int], float], times: int = 25) -> int:
    """The rung chosen most often of late, after so many pictures that take what `cost` says of a size."""
    rungs = []
    for _ in range(times):
        rungs.append(ladder.choose(FULL, seconds))
        width, height = ladder.size(FULL, rungs[-1])
        ladder.record(rungs[-1], cost(width * height))
    return statistics.mode(rungs[-7:])


def test_the_first_picture_is_coarse() -> None:
    assert Ladder().choose(FULL, 0.1) >= 3


@pytest.mark.parametrize("per_pixel", [1e-8, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("fixed", [0.0, 0.02])
def test_it_settles_on_the_finest_rung_in_time(per_pixel: float, fixed: float) -> None:
    def cost(pixels: int) -> float:
        return fixed + per_pixel * pixels

    ladder = Ladder()
    rung = drawn(ladder, 0.1, cost)
    sizes = [ladder.size(FULL, r) for r in range(len(Ladder.RUNGS))]
    in_time = [r for r, (w, h) in enumerate(sizes) if cost(w * h) <= 0.1]
    best = in_time[0] if in_time else len(Ladder.RUNGS) - 1
    assert rung == best


def test_it_comes_back_up_when_pictures_get_cheaper() -> None:
    ladder = Ladder()
    assert drawn(ladder, 0.1, lambda pixels: 2e-6 * pixels) >= 3
    assert drawn(ladder, 0.1, lambda pixels: 1e-8 * pixels, 40) == 0


def test_one_slow_picture_is_forgotten() -> None:
    """As the very first one is, which loads libraries and fills caches."""
    ladder = Ladder()
    ladder.record(ladder.choose(FULL, 0.06), 1.0)
    assert drawn(ladder, 0.06, lambda pixels: 5e-8 * pixels, 40) == 0


def test_a_larger_window_costs_more() -> None:
    ladder = Ladder()
    drawn(ladder, 0.1, lambda pixels: 1.5e-7 * pixels)
    assert ladder.choose(FULL, 0.1) == 0
    assert ladder.choose((1920, 1080), 0.1) > 0
    assert ladder.size((1, 1), 6) == (1, 1)
