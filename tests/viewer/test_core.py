"""The application at the level of its socket: pages connect, look, steer and leave."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from page import Page
from scenes import mixed
from websockets.exceptions import ConnectionClosed

from splat.core import Camera, Gaussians
from splat.core.errors import DataError
from splat.link import Commands, Progress, Session, Snapshot, View
from splat.raster import RenderOptions, render
from splat.viewer import drawing, modes
from splat.viewer.app import Viewer
from splat.viewer.drawing import Painter
from splat.viewer.panels.train import TrainPanel
from splat.viewer.serving import Address

Open = Callable[..., tuple[Viewer, list[str]]]


def scene(seed: int = 0, count: int = 60) -> Gaussians:
    return mixed(count, seed).to(torch.float32)


@pytest.fixture
def opened() -> Iterator[Open]:
    """opened(*sessions) -> (viewer, lines of its log); stopped afterwards."""
    viewers = []

    def start(*sessions: Session) -> tuple[Viewer, list[str]]:
        lines: list[str] = []
        viewers.append(Viewer(sessions, Address(port=8500), log=lines.append))
        return viewers[-1], lines

    yield start
    for viewer in viewers:
        viewer.stop()


def rested(page: Page) -> np.ndarray:
    """The picture at full size."""
    page.wait(lambda: page.images and page.image.shape[:2] == page.size[::-1])
    return page.image


def differs(page: Page, before: np.ndarray) -> bool:
    """Whether the page shows something else, at full size."""
    now = page.image
    return now.shape == before.shape and bool(np.abs(now - before.astype(float)).mean() > 1)


def test_a_page_sees_what_the_rasterizer_draws_from_its_camera(opened: Open) -> None:
    viewer, lines = opened(Session.finished("a", scene(), background=(0.1, 0.2, 0.3)))
    with Page(viewer.port, (120, 90)) as page:
        page.wait(lambda: page.camera["position"] != (0.0, 0.0, -3.0))  # placed by the viewer
        rested(page)
        before = page.images
        page.move(position=(0.5, -0.4, -5.0), look_at=(0.0, 0.1, 0.0), fov=0.9)
        page.wait(lambda: page.images > before)
        picture = rested(page)
        client = next(iter(viewer.clients.values()))
        camera = client.camera(120, 90)
        assert torch.allclose(camera.position, torch.tensor([0.5, -0.4, -5.0]), atol=1e-5)
        assert torch.allclose(camera.forward, torch.tensor([-0.5, 0.5, 5.0]) / 25.5**0.5, atol=1e-5)
        options = RenderOptions(background=torch.tensor([0.1, 0.2, 0.3]))
        drawn = render(scene(), camera, options).image.clamp(0, 1).mul(255).numpy()
        assert np.abs(picture - drawn).mean() < 3  # JPEG
        assert np.abs(picture - drawn[:, ::-1]).mean() > 10
    assert lines == []


def test_every_mode_and_both_ways_of_drawing(opened: Open) -> None:
    viewer, lines = opened(Session.finished("a", scene()))
    with Page(viewer.port, (96, 64)) as page:
        shown = rested(page)
        for mode in list(modes.MODES)[1:]:
            page.set("Show", mode)
            page.wait(lambda before=shown: differs(page, before))
            shown = page.image
        page.set("Drawn", "in the browser")
        page.wait(lambda: page.splats == 60)
        page.set("Drawn", "on the server")
        page.wait(lambda: page.splats is None)
        assert page.notifications == []
    assert lines == []


def test_the_browser_draws_each_scene_on_its_own_background(opened: Open) -> None:
    one = Session.finished("a", scene(), background=(1.0, 1.0, 1.0))
    viewer, _ = opened(one, Session.finished("b", scene(1), background=(0.2, 0.4, 0.6)))
    with Page(viewer.port) as page:
        page.set("Drawn", "in the browser")
        page.wait(lambda: page.splats == 60)
        assert page.image.tolist() == [[[255, 255, 255]]]
        page.trigger("Next scene")
        page.wait(lambda: page.image.tolist() == [[[51, 102, 153]]])


def test_hotkeys_do_what_the_panel_does(opened: Open) -> None:
    viewer, _ = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.trigger("Next way of showing")
        page.wait(lambda: page.value("Show") == "depth")
        page.trigger("Colours")
        page.wait(lambda: page.value("Show") == "colour")
        before = np.array(page.camera["up_direction"])
        page.trigger("Turn upside down")
        page.wait(lambda: np.dot(page.camera["up_direction"], before) < 0)


def test_pages_have_cameras_and_settings_of_their_own(opened: Open) -> None:
    viewer, _ = opened(Session.finished("a", scene()))
    with Page(viewer.port, (96, 64)) as one, Page(viewer.port, (64, 96)) as other:
        first = rested(one)
        assert rested(other).shape == (96, 64, 3)
        count = other.images
        one.set("Show", "alpha")
        one.move(position=(0.0, 0.0, -9.0), look_at=(0.0, 0.0, 0.0))
        one.wait(
            lambda: (
                np.abs(one.image.astype(float) - first).mean() > 5 if one.image.shape == first.shape else 0
            )
        )
        cameras = {client.pose.position[2] for client in viewer.clients.values()}
        assert len(cameras) == 2
        assert other.images == count  # nothing has changed for it
        assert other.value("Show") == "colour"


def test_scenes_in_turn_and_side_by_side(opened: Open) -> None:
    a, b = scene(), scene(1)
    b.sh = torch.full_like(b.sh[:, :1], -4.0)  # black
    viewer, _ = opened(Session.finished("a", a), Session.finished("b", b))
    with Page(viewer.port, (128, 64)) as page:
        page.wait(lambda: rested(page).max() > 100)
        page.set("Side by side", True)
        page.wait(lambda: page.image.shape == (64, 128, 3) and page.image[:, 70:].max() < 30)
        assert page.image[:, :60].max() > 100
        page.trigger("Next scene")
        page.wait(lambda: page.find("Scene") and page.value("Scene") == "2 b")
        page.set("Side by side", False)
        page.wait(lambda: page.image.shape == (64, 128, 3) and page.image.max() < 30)


class Run:
    """A trainer as the viewer sees one; `gaussians` is what it would publish."""

    def __init__(self) -> None:
        self.gaussians = scene()
        self.commands = Commands()
        self.state = "training"
        self.step = 5
        self.said: list[str] = []
        self.session = Session("run", commands=self.commands, progress=self.progress)

    def progress(self) -> Progress:
        return Progress(self.step, 100, 0.5, 20.0, len(self.gaussians), 10.0, 1.0, self.state)  # type: ignore[arg-type]

    def publish(self) -> None:
        self.session.slot.publish(Snapshot(self.step, 100, self.gaussians, 3, 0.5))

    def pause(self) -> None:
        self.state = "paused"

    def resume(self) -> None:
        self.state = "training"

    def advance(self, steps: int) -> None:
        self.said.append(f"advance {steps}")

    def save(self) -> None:
        raise DataError("disk: full: free some space")


def test_a_snapshot_is_asked_for_only_while_somebody_looks(opened: Open) -> None:
    run = Run()
    viewer, _ = opened(run.session)
    time.sleep(0.4)
    assert not run.session.slot.wanted
    with Page(viewer.port) as page:
        page.wait(lambda: run.session.slot.wanted)
        run.publish()
        page.wait_image(0)
    page.wait(lambda: not viewer.clients and not run.session.slot.wanted)


def test_commands_steer_and_their_failures_are_told(opened: Open) -> None:
    run = Run()
    run.publish()
    viewer, lines = opened(run.session)
    with Page(viewer.port) as page:
        page.press("Pause")
        page.wait(lambda: run.commands.drain(run))
        assert run.state == "paused"
        page.wait(lambda: page.find("Resume"))
        page.trigger("Pause or resume training")
        page.wait(lambda: run.commands.drain(run))
        assert run.state == "training"
        page.set("Steps", 7)
        page.set("These steps", "Train, then pause")
        page.wait(lambda: run.commands.drain(run))
        assert run.said == ["advance 7"]
        page.press("Save a checkpoint")
        page.wait(lambda: run.commands.drain(run))
        page.wait(lambda: any("disk: full" in body for _, body in page.notifications))
    assert [line for line in lines if "disk: full" in line]


def test_a_button_does_what_is_read_on_it(opened: Open, monkeypatch) -> None:
    """Pressed once more before the page has heard that the run is paused, it does not have it go on."""
    monkeypatch.setattr(TrainPanel, "update", lambda *args: None)
    run = Run()
    run.publish()
    viewer, _ = opened(run.session)
    with Page(viewer.port) as page:
        for _ in range(2):
            page.press("Pause")
            page.wait(lambda: run.commands.drain(run))
            assert run.state == "paused"


def test_a_picture_that_fails_is_told_once_and_the_next_one_comes(opened: Open, monkeypatch) -> None:
    viewer, lines = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.wait_image(0)
        broken = {"now": True}
        good = modes.MODES["alpha"]

        def alpha(*args):
            if broken["now"]:
                raise RuntimeError("no picture today")
            return good(*args)

        monkeypatch.setitem(modes.MODES, "alpha", alpha)
        page.set("Show", "alpha")
        page.wait(lambda: any("no picture today" in body for _, body in page.notifications))
        count = page.images
        broken["now"] = False
        page.wait(lambda: page.images > count)
        time.sleep(0.2)
        assert sum("no picture today" in body for _, body in page.notifications) == 1
    assert sum("no picture today" in line for line in lines) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_replaced_and_the_page_says_so(opened: Open) -> None:
    viewer, lines = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.wait_image(0)
        client = next(iter(viewer.clients.values()))

        def die() -> None:
            raise SystemExit

        client.painter._keep_up = die  # type: ignore[method-assign]
        page.wait(lambda: not client.painter.alive)
        del client.painter._keep_up  # type: ignore[attr-defined]
        page.wait(lambda: any("started again" in body for _, body in page.notifications))
        page.wait(lambda: client.painter.alive)
        page.set("Show", "alpha")
        page.wait_image()
    assert any("started again" in line for line in lines)


def test_a_thread_that_is_yet_to_start_has_not_died(opened: Open, monkeypatch) -> None:
    viewer, _ = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.wait_image(0)
        painter = Painter(next(iter(viewer.clients.values())))
        died: list[bool] = []

        class Watched(threading.Thread):
            def start(self) -> None:
                died.append(painter.died)
                super().start()

        monkeypatch.setattr(drawing, "threading", SimpleNamespace(Thread=Watched))
        painter.start()
        painter.close()
    assert died == [False]


def test_garbage_on_the_socket_closes_that_connection_alone(opened: Open) -> None:
    viewer, lines = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.wait_image(0)
        with Page(viewer.port) as rude:
            rude.wait_image(0)
            with contextlib.suppress(ConnectionClosed):  # the first may be enough to be shown the door
                rude.send("NoSuchMessage", what=1)
                rude.socket.send(b"\x00garbage")
                rude.socket.send("text")
            page.wait(lambda: len(viewer.clients) == 1)
        page.set("Show", "alpha")
        page.wait_image()
    page.wait(lambda: lines)
    assert all(line.startswith("viewer: ") for line in lines)


def test_two_hundred_visitors_leave_nothing_behind(opened: Open) -> None:
    viewer, lines = opened(Session.finished("a", scene()))
    with Page(viewer.port) as page:
        page.wait_image(0)
    page.wait(lambda: not viewer.clients)
    threads = threading.active_count()
    for _ in range(200):
        Page(viewer.port).socket.close()
    page.wait(lambda: not viewer.clients)
    page.wait(lambda: threading.active_count() <= threads + 32)  # viser's pool of 32
    ours = "viewer-ticker"
    page.wait(lambda: {t.name for t in threading.enumerate() if t.name.startswith("viewer-")} == {ours})
    with Page(viewer.port) as page:
        page.wait_image(0)
    assert not [line for line in lines if "Error" in line]


def test_photographs_are_visited_and_compared(opened: Open) -> None:
    gaussians = scene()
    positions = (torch.tensor([0.0, 0.0, -5.0]), torch.tensor([4.0, -1.0, -3.0]))
    cameras = [
        Camera.look_at(p, torch.zeros(3), torch.tensor([0, -1.0, 0]), width=80, height=60, field_of_view=0.9)
        for p in positions
    ]
    photos = [
        render(gaussians, camera).image.clamp(0, 1).mul(255).round().to(torch.uint8) for camera in cameras
    ]
    views = [View(str(i), camera, lambda i=i: photos[i]) for i, camera in enumerate(cameras)]
    viewer, lines = opened(Session.finished("a", gaussians, views=views))
    with Page(viewer.port, (80, 60)) as page:
        page.trigger("Next photograph")
        page.wait(lambda: np.allclose(page.camera["position"], positions[1], atol=1e-4))
        client = next(iter(viewer.clients.values()))
        page.wait(lambda: client.standing_at(client.camera(80, 60)) is views[1])
        page.set("Show", "error")
        page.wait(
            lambda: page.image.shape == (60, 80, 3) and page.image.max() < 60
        )  # turbo's begin: no error
        before = page.images
        page.move(position=(0.0, 3.0, -6.0))
        page.wait(lambda: page.images > before)
        assert client.standing_at(client.camera(80, 60)) is None
    assert lines == []
