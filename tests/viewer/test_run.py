"""A viewer beside a real training: the same bits as without, whatever happens to the viewer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from page import Page

from splat.data.sample import write_sample
from splat.link import Session
from splat.strategies import registry
from splat.training import checkpoint, live
from splat.training.config import TrainConfig
from splat.training.run import RunResult, train
from splat.training.runfolder import RunFolder
from splat.viewer import modes
from splat.viewer.app import Viewer
from splat.viewer.serving import Address

STEPS = 60
CONFIG = TrainConfig(
    steps=STEPS,
    device="cpu",
    eval=True,
    strategies=("mcmc",),
    eval_steps=(),
    sh_interval=20,
    max_gaussians=600,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    return write_sample(folder, views=12, width=64, height=48, points=400, samples=1, truth=False)


def options() -> dict[str, Any]:
    return {"mcmc": {"refine_start": 10, "refine_every": 10}}


def go(data: Path, out: Path, ready: Callable[[Session], None] | None = None, **more: Any) -> RunResult:
    config = replace(CONFIG, options=options())
    strategies = registry.build(config.strategies, config.options)
    return train(config, data, out, strategies=strategies, ready=ready, quiet=True, **more)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run without a viewer."""
    return go(data, tmp_path_factory.mktemp("alone") / "run")


def same(a: RunResult, b: RunResult) -> bool:
    """Whether two runs ended with the same bits: parameters, moments, generators."""
    one, other = (checkpoint.load_latest(RunFolder.open(run.folder))[0] for run in (a, b))
    assert one is not None
    assert other is not None
    return _equal(one["trainer"], other["trainer"])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


class Beside:
    """A viewer and a page beside a run, that hold it up until `act` has done what it wants to."""

    def __init__(self, act: Callable[[Beside], None], share: float = 1.0) -> None:
        self.act, self.share = act, share
        self.viewer: Viewer = None  # type: ignore[assignment]
        self.page: Page = None  # type: ignore[assignment]
        self._over = threading.Event()
        self.session: Session = None  # type: ignore[assignment]
        self.failure: BaseException | None = None
        self.lines: list[str] = []
        self._thread: threading.Thread | None = None

    def __call__(self, session: Session) -> None:
        self.session = session
        self.viewer = Viewer([session], Address(port=8600), self.share, self.lines.append)
        assert session.commands is not None
        session.commands.send(lambda trainer: trainer.pause())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        assert self.session.commands is not None
        try:
            self.page = Page(self.viewer.port, (96, 64))
            self.page.wait_image(0)
            self.act(self)
        except BaseException as error:
            self.failure = error
            self.session.commands.send(lambda trainer: trainer.stop())
        finally:
            # Again and again: what the page sent last may arrive late, and pause the run once more.
            while not self._over.wait(0.05):
                self.session.commands.send(lambda trainer: trainer.resume())

    def train(self, data: Path, out: Path, **more: Any) -> RunResult:
        """The run, to its end; raises what failed in it or in `act`."""
        try:
            return go(data, out, self, **more)
        finally:
            self._end()

    def _end(self) -> None:
        self._over.set()
        if self._thread is None:
            return
        self._thread.join()
        if self.page is not None:
            self.page.close()
        self.viewer.stop()
        if self.failure is not None:
            raise self.failure

    @property
    def step(self) -> int:
        assert self.session.progress is not None
        return self.session.progress().step

    def advance(self, steps: int) -> None:
        """Through the page: so many steps, then pause; until the picture of the last one is there."""
        expected = self.step + steps
        self.page.set("Steps", steps)
        self.page.set("These steps", "Train, then pause")
        self.page.wait(lambda: self.step == expected)
        client = next(iter(self.viewer.clients.values()))
        self.page.wait(lambda: client.source.snapshot.step == expected)


def test_steered_from_a_page_the_run_ends_with_the_same_bits(
    data: Path, tmp_path: Path, alone: RunResult
) -> None:
    def act(beside: Beside) -> None:
        page = beside.page
        page.wait(lambda: page.find("Resume"))
        first = page.image
        beside.advance(20)
        page.wait(lambda: page.image.shape == (64, 96, 3))
        assert first.shape != page.image.shape or (first != page.image).any()
        stood = beside.step
        time.sleep(0.2)
        assert beside.step == stood == 20
        for mode in ("depth", "contribution", "error", "colour"):
            page.set("Show", mode)
            page.wait_image()
        page.press("Save a checkpoint")
        page.wait(lambda: (tmp_path / "run/ckpts/step_20.pt").exists())
        page.trigger("Draw on the server or in the browser")
        page.wait(lambda: page.splats)
        beside.advance(5)
        page.trigger("Draw on the server or in the browser")
        page.press("Resume")

    beside = Beside(act)
    result = beside.train(data, tmp_path / "run")
    assert result.step == STEPS
    assert same(result, alone)
    assert not [line for line in beside.lines if "Error" in line]


def test_render_errors_and_a_dead_viewer_leave_the_run_alone(
    data: Path, tmp_path: Path, alone: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(beside: Beside) -> None:
        def broken(*args: Any) -> Any:
            raise MemoryError("no room for a picture")

        monkeypatch.setitem(modes.MODES, "depth", broken)
        beside.page.set("Show", "depth")
        beside.page.wait(lambda: any("no room" in body for _, body in beside.page.notifications))
        beside.viewer.server.get_event_loop().call_soon_threadsafe(lambda: 1 / 0)
        beside.advance(3)
        beside.viewer.stop()  # as if all its threads had died

    beside = Beside(act)
    result = beside.train(data, tmp_path / "run")
    assert same(result, alone)


def test_a_stop_and_an_extension_from_the_page(data: Path, tmp_path: Path) -> None:
    def act(beside: Beside) -> None:
        beside.advance(10)
        beside.page.set("These steps", "Extend the run")
        beside.page.wait(lambda: beside.session.progress().end == STEPS + 10)  # type: ignore[misc]
        beside.page.press("Stop, score and export")
        beside.page.wait(lambda: beside.session.progress().state == "finished")  # type: ignore[misc]

    beside = Beside(act)
    result = beside.train(data, tmp_path / "run")
    assert result.step == 10
    assert result.scene.exists()


def test_kept_after_its_end_a_run_can_be_extended(data: Path, tmp_path: Path) -> None:
    def act(beside: Beside) -> None:
        page = beside.page
        page.press("Resume")
        page.wait(lambda: beside.session.progress().state == "finished")  # type: ignore[misc]
        assert beside.step == STEPS
        page.set("Steps", 5)
        page.set("These steps", "Extend the run")
        page.wait(lambda: beside.step == STEPS + 5)
        page.wait(lambda: beside.session.progress().state == "finished")  # type: ignore[misc]
        page.press("Stop, score and export")

    beside = Beside(act)
    result = beside.train(data, tmp_path / "run", keep=True)
    assert result.step == STEPS + 5
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_publishing_waits_for_a_request_and_says_what_it_took(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PUBLISH_SECONDS", 0.0)
    seen: list[int] = []

    def ready(session: Session) -> None:
        session.slot.wanted = True

        def look(trainer: Any) -> None:
            version, snapshot = session.slot.latest(timeout=0)
            seen.append(version)
            if snapshot is not None:
                assert 0 < snapshot.seconds < 5
                assert not session.slot.wanted or trainer.ctx.step == 30
            if trainer.ctx.step == 30:
                session.slot.wanted = True
            if trainer.ctx.step < 59:
                session.commands.send(look)  # type: ignore[union-attr]

        session.commands.send(look)  # type: ignore[union-attr]

    go(data, tmp_path / "run", ready)
    assert seen[-1] == 2
