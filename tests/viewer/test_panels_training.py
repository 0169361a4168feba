"""The panels on a run: what is taken out, put back and set reaches the training thread, and the run goes on."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from page import Page
from patience import PATIENCE

from splat.core import DataError
from splat.data.sample import write_sample
from splat.link import Entry, Session
from splat.strategies import registry
from splat.strategies.mcmc import Mcmc
from splat.training import run
from splat.training.config import InitConfig, TrainConfig
from splat.viewer.app import Viewer
from splat.viewer.serving import Address

# Relocates often, and never grows.
MCMC = {"mcmc": {"refine_start": 20, "refine_every": 20, "min_opacity": 0.05, "growth": 1.0}}


class Talking(Mcmc):
    """MCMC with a panel of its own."""

    name: ClassVar[str] = "talking"
    pressed: ClassVar[list[threading.Thread]] = []

    def panel(self, ctx: Any) -> list[Entry]:
        return [
            Entry("Steps so far", "value", lambda: ctx.step),
            Entry("Press me", "button", None, lambda value: self.pressed.append(threading.current_thread())),
        ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_sample(folder, views=5, width=48, height=36, points=400, truth=False)


@pytest.fixture
def visited(data: Path, tmp_path: Path) -> Callable[[Callable[[Page, Session], None]], tuple[Any, list]]:
    """visited(visit): a run that goes on until `visit`, in a thread of its own, returns; its result and log."""

    def go(visit: Callable[[Page, Session], None]) -> tuple[Any, list]:
        failures: list[BaseException] = []
        viewers: list[Viewer] = []
        lines: list[str] = []
        threads: list[threading.Thread] = []

        def ready(session: Session) -> None:
            log, session.log = session.log, lambda line: (lines.append(line), log(line))[1]
            viewers.append(Viewer([session], Address(port=18180)))

            def look() -> None:
                try:
                    with Page(viewers[0].port) as page:
                        page.wait(lambda: page.images)
                        visit(page, session)
                except BaseException as error:
                    failures.append(error)
                finally:
                    session.commands.send(lambda trainer: trainer.stop())

            threads.append(threading.Thread(target=look))
            threads[0].start()

        config = TrainConfig(
            steps=100_000,
            init=InitConfig(),
            max_gaussians=500,
            sh_degree=1,
            strategies=("mcmc",),
            options=MCMC,
        )
        chosen = registry.build(config.strategies, config.options)
        chosen = [Talking(chosen[0].config)]
        try:
            result = run.train(config, data, tmp_path / "run", strategies=chosen, ready=ready, quiet=True)
        finally:
            threads[0].join(PATIENCE)
            viewers[0].stop()
        if failures:
            raise failures[0]
        return result, lines

    return go


def test_a_run_is_edited_while_it_trains(visited: Any) -> None:
    """Removed by a rectangle that is older than the next steps; put back; the most Gaussians lowered."""
    counts: list[int] = []
    Talking.pressed.clear()

    def visit(page: Page, session: Session) -> None:
        def count() -> int:
            return session.progress().count

        page.set("Most Gaussians", 450)
        page.wait(lambda: session.panels()[0].entries[0].read() == 450)
        page.wait(lambda: session.progress().step > 60)
        page.set("Fly to", "This")
        page.wait(lambda: "At **" in page.text())
        page.send(
            "ScenePointerMessage",
            event_type="rect-select",
            ray_origin=None,
            ray_direction=None,
            screen_pos=((0.4, 0.0), (0.6, 1.0)),
            modifier="shift",
        )
        page.wait(lambda: "selected (" in page.text())
        chosen = int(re.search(r"\*\*([\d,]+)\*\* of [\d,]+ selected", page.text())[1].replace(",", ""))
        at = session.progress().step
        page.wait(lambda: session.progress().step > at + 45)  # relocation moves rows meanwhile
        before = count()
        page.press("Delete the selection")
        page.wait(lambda: count() < before)
        counts.extend([before, count(), chosen])
        page.press("Undo the last deletion")
        page.wait(lambda: count() == before)
        page.press("Press me")
        page.wait(lambda: Talking.pressed)
        page.wait(lambda: "| Steps so far |" in page.text() and "| relocated |" in page.text())
        page.press("Write and download")
        page.wait(lambda: any("sent to the browser" in title for title, _ in page.notifications))

    result, _ = visited(visit)
    before, after, chosen = counts
    # Whoever was relocated since has another place by now, and stays.
    assert before - chosen <= after < before
    assert Talking.pressed == [threading.main_thread()]
    assert result.num_gaussians == before
    assert result.scene.exists()


def test_what_fails_is_told_and_the_run_goes_on(visited: Any) -> None:
    def visit(page: Page, session: Session) -> None:
        def full(*_: Any) -> list[str]:
            raise DataError("exports/scene.ply: cannot be written (No space left on device)")

        def broken(*_: Any) -> float:
            raise RuntimeError("the render failed")

        session.export, session.evaluate = full, broken
        page.press("Write and download")
        page.press("Preview")
        page.press("Undo the last deletion")
        for said in ("No space left", "the render failed", "nothing was removed"):
            page.wait(lambda said=said: any(said in body for _, body in page.notifications))
        at = session.progress().step
        page.wait(lambda: session.progress().step > at + 20)

    result, lines = visited(visit)
    assert result.scene.exists()
    for said in ("No space left", "the render failed", "nothing was removed"):
        assert any(said in line for line in lines)
