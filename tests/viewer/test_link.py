"""The seam between trainer and viewer: the slot, the queue, the curves."""

from __future__ import annotations

import itertools
import math
import threading
import time

import pytest
from patience import PATIENCE, wait

from splat.link import Commands, History, Session, Slot, Turns


def test_a_slot_keeps_the_newest_value_only() -> None:
    slot: Slot[int] = Slot()
    assert slot.latest(timeout=0) == (0, None)
    for value in (1, 2, 3):
        slot.publish(value)
    assert slot.latest(timeout=0) == (3, 3)


def test_a_reader_waits_for_news_and_no_longer_than_it_said() -> None:
    slot: Slot[str] = Slot()
    slot.publish("old")
    began = time.monotonic()
    assert slot.latest(newer_than=1, timeout=0.05) == (1, "old")
    assert time.monotonic() - began >= 0.05
    threading.Timer(0.05, lambda: slot.publish("new")).start()
    assert slot.latest(newer_than=1, timeout=PATIENCE) == (2, "new")


def test_commands_run_in_order_and_failures_go_to_who_sent_them() -> None:
    commands = Commands()
    done: list[int] = []
    told: list[Exception] = []
    commands.send(lambda target: target.append(1))
    commands.send(lambda target: 1 / 0, told.append)
    commands.send(lambda target: target.append(2))
    assert commands.drain(done) == 3
    assert done == [1, 2]
    assert isinstance(told[0], ZeroDivisionError)
    assert commands.drain(done) == 0


def test_what_a_command_sends_waits_for_the_next_time() -> None:
    commands = Commands()

    def again(target: list[int]) -> None:
        target.append(1)
        commands.send(again)

    commands.send(again)
    done: list[int] = []
    assert commands.drain(done) == 1
    assert commands.drain(done) == 1
    assert done == [1, 1]


def test_a_command_that_nobody_answers_for_fails_aloud() -> None:
    commands = Commands()
    commands.send(lambda target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        commands.drain(None)


def test_a_history_thins_itself_and_keeps_its_span() -> None:
    history = History()
    for step in range(1, 20_001):
        history.add(step, 1 / step, math.log(step), step)
    rows = history.rows()
    assert 500 <= len(rows) <= 2_000
    steps = [row[0] for row in rows]
    gaps = {b - a for a, b in itertools.pairwise(steps)}
    assert len(gaps) == 1  # evenly
    assert steps[0] <= 32
    assert steps[-1] > 20_000 - 32


def test_a_finished_scene_has_published_its_only_snapshot() -> None:
    from scenes import mixed

    scene = mixed(5)
    version, snapshot = Session.finished("a", scene, 7).slot.latest(timeout=0)
    assert (version, snapshot.step, snapshot.end) == (1, 7, 7)
    assert snapshot.gaussians is scene
    assert snapshot.sh_degree == scene.sh_degree


class Lender:
    """A thread that counts its steps and lends between them."""

    def __init__(self, turns: Turns) -> None:
        self.steps = 0
        self.ended = False
        self._turns = turns
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.ended:
            self.steps += 1
            self._turns.lend()
            time.sleep(0.001)

    def end(self) -> None:
        self.ended = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_the_lender_waits_while_somebody_has_a_turn() -> None:
    turns = Turns(patience=PATIENCE)
    lender = Lender(turns)
    for _ in range(3):
        with turns.borrow(PATIENCE) as lent:
            assert lent
            before = lender.steps
            time.sleep(0.05)
            assert lender.steps == before
    wait(lambda: lender.steps > before)
    lender.end()


def test_turns_are_had_one_at_a_time() -> None:
    turns = Turns(patience=PATIENCE)
    lender = Lender(turns)
    inside, most, had = 0, 0, 0

    def borrow() -> None:
        nonlocal inside, most, had
        for _ in range(10):
            with turns.borrow(PATIENCE) as lent:
                inside += 1
                most, had = max(most, inside), had + lent
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=borrow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lender.end()
    assert (most, had) == (1, 40)


def test_nobody_waits_for_one_who_overstays() -> None:
    turns = Turns(patience=0.05)
    lender = Lender(turns)
    with turns.borrow(PATIENCE) as lent:
        assert lent
        before = lender.steps
        wait(lambda: lender.steps > before)
        with turns.borrow(PATIENCE) as another:  # and his end, when it comes, is not that of the next
            assert another
    lender.end()


def test_where_nobody_lends_one_goes_without() -> None:
    turns = Turns()
    with turns.borrow(0.01) as lent:
        assert not lent
    turns.lend()  # nobody waits any more: returns at once


def test_a_turn_ends_with_an_error_in_it() -> None:
    turns = Turns(patience=PATIENCE)
    lender = Lender(turns)
    with pytest.raises(RuntimeError, match="no"), turns.borrow(PATIENCE):
        raise RuntimeError("no")
    before = lender.steps
    wait(lambda: lender.steps > before)
    lender.end()
