"""The live viewer, in a real browser, beside a real training run: `splat train --viewer`."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import showcase
from patience import PATIENCE, wait

from splat import codecs
from splat.cli import main
from splat.viewer.app import Viewer
from splat.viewer.serving import Address

STEPS, MORE = 100_000, 100  # longer than any visit
# The panel takes the right of the window; the scene is seen here.
SCENE = {"x": 20, "y": 20, "width": 420, "height": 460}


class Run:
    """A training in a process of its own.

    Attributes:
        url: of its viewer.
        out: its folder.
    """

    def __init__(self, data: Path, out: Path) -> None:
        flags = ["--preset", "cpu", "--steps", str(STEPS), "--max-gaussians", "2000", "--viewer"]
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "splat", "train", str(data), "--out", str(out), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait(lambda: next(iter(re.findall(r"viewer: (http\S+)", "".join(self.lines))), None))

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until the condition holds; AssertionError with what the run said where it does not."""
        return wait(condition, lambda: "the run said:\n" + "".join(self.lines[-20:]), every=0.05)

    def step(self) -> int:
        """The latest in metrics.jsonl, which has every tenth."""
        text = (self.out / "metrics.jsonl").read_text()
        return json.loads(text[: text.rindex("\n")].splitlines()[-1])["step"]


@pytest.fixture
def run(chromium, tmp_path) -> Iterator[Run]:
    from splat.data.sample import write_sample

    data = write_sample(
        tmp_path / "sample", views=12, width=96, height=72, points=500, samples=1, truth=False
    )
    run = Run(data, tmp_path / "run")
    yield run
    run.process.kill()
    run.process.wait()


def seen(page: Any) -> np.ndarray:
    """[H, W, 3] what is drawn of the scene, in levels."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=SCENE))).convert("RGB")).astype(float)


def steps_shown(page: Any) -> int:
    return int(re.search(r"step ([\d,]+) of", page.inner_text("body"))[1].replace(",", ""))


def settled(page: Any) -> np.ndarray:
    """What is drawn once it no longer changes, but for the last bit of a few pixels: the place's finest picture."""
    pictures = [seen(page)]
    while len(pictures) < 200:
        page.wait_for_timeout(250)
        pictures.append(seen(page))
        # For a second and a half: a machine with much else to do takes its time to the finest one.
        if len(pictures) > 6 and all(np.abs(pictures[-1] - one).max() <= 1 for one in pictures[-7:-1]):
            return pictures[-1]
    raise AssertionError("the picture does not come to rest")


def choose(page: Any, label: str, option: str) -> None:
    """One of a dropdown."""
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_visit(run, open_page, screenshots, tmp_path):
    """Connect, watch, pause, look around, compare, take a file away, leave; the run goes on until it is stopped."""
    # viser makes the canvas coarser while frames come late: on a busy machine the same picture is then not the same.
    page = open_page(f"{run.url}?fixedDpr=1", 820, 500)
    page.get_by_text(re.compile("step [1-9][0-9,]* of")).wait_for()

    # It changes by itself.
    first = seen(page)
    run.wait(lambda: np.abs(seen(page) - first).mean() > 0.5)
    page.screenshot(path=screenshots / "viewer-training.png")

    # It stands still when asked to, and goes on.
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_text(re.compile("^paused step")).wait_for()
    page.wait_for_timeout(500)
    at, written = steps_shown(page), run.step()
    page.wait_for_timeout(1500)
    assert steps_shown(page) == at
    assert run.step() == written
    page.get_by_role("button", name="Resume").click()
    run.wait(lambda: run.step() > written)
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_text(re.compile("^paused step")).wait_for()

    # To where a photograph was taken, and against it.
    page.get_by_role("tab", name="Cameras").click()
    page.get_by_text("At view_000.png").wait_for()
    before = settled(page)

    def away(picture: np.ndarray) -> float:
        """Levels between what is drawn and a picture; a busy machine takes its time to draw another."""
        return float(np.abs(seen(page) - picture).mean())

    page.get_by_role("button", name="Next").click()
    page.get_by_text("At view_001.png").wait_for()
    run.wait(lambda: away(before) > 2)
    pictures = [settled(page)]
    for comparison in ("beside", "wipe", "difference"):
        choose(page, "Compare", comparison)
        run.wait(lambda: away(pictures[-1]) > 0.5)
        pictures.append(settled(page))
        page.screenshot(path=screenshots / f"viewer-{comparison}.png")
    there, *compared = pictures
    least = min(float(np.abs(picture - there).mean()) for picture in compared)
    assert least > 0.5
    choose(page, "Compare", "off")
    run.wait(lambda: away(there) < least / 2)
    page.keyboard.press("l")  # the previous one; keys are not the dropdown's once something is chosen
    page.get_by_text("At view_011.png").wait_for()

    # A file to take home.
    page.get_by_role("tab", name="Export").click()
    choose(page, "Format", ".ply")
    with page.expect_download() as download:
        page.get_by_role("button", name="Write and download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert main(["info", str(path)]) == 0
    assert len(codecs.decode(path)[0]) > 100

    # The end is moved on, and the run goes on without anybody looking.
    page.get_by_role("tab", name="Train").click()
    page.get_by_label("Steps", exact=True).fill(str(MORE))
    page.get_by_label("Steps", exact=True).press("Enter")
    page.get_by_role("button", name="Extend the run").click()
    page.get_by_text(re.compile(f"of {STEPS + MORE:,}")).wait_for()
    page.screenshot(path=screenshots / "viewer-paused.png")
    page.get_by_role("button", name="Resume").click()
    run.wait(lambda: run.step() > written + 20)
    page.context.close()
    left = run.step()
    run.wait(lambda: run.step() > left + 100)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=PATIENCE) == 130
    assert max(int(path.stem.split("_")[1]) for path in (run.out / "ckpts").glob("step_*.pt")) > left + 100
    assert not re.search("Traceback|viewer: (?!http|from another)", "".join(run.lines))


def test_two_scenes(open_page, screenshots, tmp_path):
    """Side by side; selected by Shift and drag in one of them; drawn by the browser, on the scene's background."""
    blue = (0.1, 0.2, 0.6)
    scenes = [showcase.gaussians(seed=seed) for seed in range(2)]
    viewer = Viewer(
        [showcase.session(tmp_path, scene, background=blue) for scene in scenes], Address(port=18180)
    )
    try:
        page = open_page(f"http://127.0.0.1:{viewer.port}", 820, 500)
        page.get_by_label("Side by side").check()
        painter = next(iter(viewer.clients.values())).painter
        settled(page)
        assert len(painter.columns) == 2

        page.get_by_role("tab", name="Scene").click()
        page.keyboard.down("Shift")
        page.mouse.move(20, 250)  # the first column from its left to its middle, the lower half
        page.mouse.down()
        page.mouse.move(205, 480, steps=4)
        page.mouse.up()
        page.keyboard.up("Shift")
        said = page.get_by_text(re.compile("of 400 selected")).inner_text()
        assert 50 < int(said.split()[0]) < 150  # a quarter of the ball
        page.screenshot(path=screenshots / "viewer-two.png")

        page.get_by_role("tab", name="View").click()
        page.get_by_label("Side by side").uncheck()
        page.keyboard.press("b")  # keys are not the checkbox's once it was clicked
        page.get_by_text("400 splats in the browser").wait_for()
        drawn = settled(page)
        page.screenshot(path=screenshots / "viewer-browser.png")
        assert np.abs(drawn[-1, 0] - 255 * np.array(blue)).max() < 1
        assert np.abs(drawn - drawn[-1, 0]).mean() > 5
    finally:
        viewer.stop()


def test_a_phone(open_page, screenshots, tmp_path):
    """The page fits, its tabs can be reached, and the scene can still be seen."""
    viewer = Viewer([showcase.session(tmp_path)], Address(port=18180))
    try:
        page = open_page(f"http://127.0.0.1:{viewer.port}", 390, 700, has_touch=True, is_mobile=True)
        page.get_by_role("tab", name="Export").wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=screenshots / "viewer-phone.png")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        tabs = page.get_by_role("tab").all()
        assert len(tabs) > 4
        for tab in tabs:
            box = tab.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
    finally:
        viewer.stop()
