"""Longer work: within the budget, called off, and its failures told."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from splat.viewer.budget import Budget
from splat.viewer.jobs import CalledOff, Job


class Someone:
    """What a job knows of a visitor: a budget of 10% on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.failures: list[Exception] = []
        self.closed = False
        budget = Budget(0.1, lambda: self.now)
        self.viewer = SimpleNamespace(budget=budget)

    def work(self, name: str, job: Any) -> threading.Thread:
        def run() -> None:
            try:
                job()
            except Exception as error:
                self.failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def someone() -> Someone:
    return Someone()


def test_work_waits_until_the_budget_allows_more(someone):
    someone.viewer.budget.spend(1.0)  # ten seconds of its share
    done: list[int] = []

    def work(job: Job) -> None:
        for i in range(3):
            if not job.go_on():
                raise CalledOff
            done.append(i)

    job = Job(someone, "test", work)
    time.sleep(0.3)
    assert done == []
    someone.now = 9.9
    time.sleep(0.3)
    assert done == []
    assert job.running
    someone.now = 10.1
    job.join(PATIENCE)
    assert done == [0, 1, 2]
    assert not job.running
    assert someone.viewer.budget.spent > 1.0


def test_where_nothing_trains_nothing_waits(someone):
    someone.viewer.budget.unlimited = True
    someone.viewer.budget.spend(100.0)
    asked: list[bool] = []
    Job(someone, "test", lambda job: asked.append(job.go_on())).join(PATIENCE)
    assert asked == [True]


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_work_ends_when_it_is_called_off_or_nobody_is_left(someone, how):
    someone.viewer.budget.spend(1.0)
    asked: list[bool] = []

    def work(job: Job) -> None:
        asked.append(job.go_on())
        raise CalledOff

    job = Job(someone, "test", work)
    if how == "cancel":
        job.cancel()
    else:
        someone.closed = True
    job.join(PATIENCE)
    assert asked == [False]
    assert not job.running
    assert someone.failures == []


def test_what_goes_wrong_is_passed_on(someone):
    def work(job: Job) -> None:
        raise RuntimeError("no")

    job = Job(someone, "test", work)
    job.join(PATIENCE)
    assert not job.running
    assert [str(error) for error in someone.failures] == ["no"]
