"""Whatever visitors do, and whatever breaks in the viewer, the run goes on and the page says what happened."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from page import Page
from patience import PATIENCE, wait
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from splat.data.sample import write_sample
from splat.link import Commands, Session
from splat.strategies import registry
from splat.training.config import load_preset
from splat.training.run import RunResult, train
from splat.viewer import modes
from splat.viewer.app import Viewer
from splat.viewer.serving import Address

pytestmark = [
    pytest.mark.filterwarnings("ignore:Queued a .* on a closed connection"),
    pytest.mark.filterwarnings(r"ignore:\[viser\] .* does not match annotation"),
]


class Training:
    """A run in a thread of its own, with a viewer.

    Attributes:
        said: lines of its log.
        result: once it has ended.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self.said: list[str] = []
        self.result: RunResult | None = None
        self.error: BaseException | None = None
        self.commands = Commands()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(data, out), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self, data: Path, out: Path) -> None:
        config = load_preset("cpu")
        config = type(config)(**{**config.__dict__, "steps": 10**6, "device": "cpu", "max_gaussians": 500})
        strategies = registry.build(config.strategies, config.options)
        try:
            self.result = train(
                config,
                data,
                out,
                strategies=strategies,
                commands=self.commands,
                ready=self._serve,
                quiet=True,
            )
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    def _serve(self, session: Session) -> None:
        self.session = session
        self.viewer = Viewer([session], Address(port=8500), log=self.said.append)
        self.port = self.viewer.port
        self._ready.set()

    @property
    def step(self) -> int:
        assert self.session.progress is not None
        return self.session.progress().step

    def goes_on(self) -> None:
        """Some more steps are taken."""
        at = self.step
        wait(lambda: self.step > at + 5)

    def end(self) -> None:
        """It ends as it should when told to."""
        self.viewer.stop()
        self.commands.send(lambda trainer: trainer.stop())
        self._thread.join(PATIENCE)
        assert self.error is None
        assert self.result is not None
        assert self.result.scene.exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("viewer") / "sample"
    return write_sample(folder, views=6, width=48, height=36, points=200, samples=1, truth=False)


@pytest.fixture
def training(data, tmp_path) -> Iterator[Training]:
    run = Training(data, tmp_path / "run")
    yield run
    run.end()


def raw(port: int) -> Any:
    """A socket that speaks the protocol's first word and nothing more."""
    from importlib import metadata

    version = f"viser-v{metadata.version('viser')}"
    return connect(
        f"ws://127.0.0.1:{port}", subprotocols=[version], compression=None, max_queue=1, close_timeout=0.2
    )


CAMERA = {
    "position": (0.0, 0.0, -3.0),
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, -1.0, 0.0),
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "fov": 1.0,
    "near": 0.01,
    "far": 100.0,
    "image_width": 320,
    "image_height": 240,
}


def camera_message(**changes: Any) -> bytes:
    return msgspec.msgpack.encode({"type": "ViewerCameraMessage", **CAMERA, **changes})


def test_visitors_who_come_and_go_leave_nothing_behind(training):
    """Some stay for a picture, some leave before the server has finished its greeting."""
    for number in range(40):
        with Page(training.port) as page:
            if number % 8 == 0:
                page.wait(lambda: page.images)
    wait(lambda: not training.viewer.clients)
    wait(
        lambda: (
            not [t for t in threading.enumerate() if t.name.startswith("viewer-") and t.name[7:].isdigit()]
        )
    )
    training.goes_on()
    time.sleep(0.2)
    assert not training.session.slot.wanted  # nobody looks: the trainer publishes nothing


def test_garbage_on_the_socket(training, capfd):
    random = np.random.default_rng(0)
    messages = [
        random.bytes(200),
        "text where bytes belong",
        b"",
        msgspec.msgpack.encode({"type": "Nothing"}),
        msgspec.msgpack.encode({"type": "ViewerCameraMessage", "position": "here"}),
        msgspec.msgpack.encode([1, 2, 3]),
        msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": "none", "updates": {"value": 1}}),
        msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": 5, "updates": 7}),
        random.bytes(1 << 20),
    ]
    with Page(training.port) as bystander:
        bystander.wait(lambda: bystander.images)
        for message in messages:
            with contextlib.suppress(WebSocketException, OSError), raw(training.port) as socket:
                socket.send(camera_message())
                socket.send(message)
                socket.recv(1)
        training.goes_on()
        count = bystander.images
        bystander.move(position=(0.5, 0.0, -3.0))
        bystander.wait(lambda: bystander.images > count)
    wait(lambda: not training.viewer.clients)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert any("KeyError('Nothing')" in line for line in training.said)
    assert len(training.said) < 3 * len(messages)


@pytest.mark.parametrize(
    "bad",
    [
        {"position": (float("nan"),) * 3},
        {"position": (1e30, 0.0, 0.0)},
        {"position": (1.0,)},
        {"wxyz": (0.0, 0.0, 0.0, 0.0)},
        {"look_at": CAMERA["position"], "up_direction": (0.0, 0.0, 0.0)},
        {"fov": 0.0},
        {"fov": float("nan")},
        {"fov": -2.0},
        {"image_width": 0, "image_height": 0},
        {"image_width": -5},
        {"image_width": 10**7, "image_height": 10**7},
    ],
    ids=str,
)
def test_cameras_that_cannot_be(shared_training, bad):
    """The page gets its picture back with the next camera that can."""
    with Page(shared_training.port) as page:
        page.wait(lambda: page.images)
        page.socket.send(camera_message(**bad))
        time.sleep(0.3)
        count = page.images
        page.move(position=(0.3, 0.0, -3.0))
        page.wait(lambda: page.images > count)
        shared_training.goes_on()


@pytest.fixture(scope="module")
def shared_training(data, tmp_path_factory) -> Iterator[Training]:
    run = Training(data, tmp_path_factory.mktemp("shared") / "run")
    yield run
    run.end()


def test_a_visitor_who_stops_listening(training):
    """What waits for him stays small, others see on, and he is forgotten when he goes."""
    with raw(training.port) as socket, Page(training.port) as other:
        socket.send(camera_message(image_width=640, image_height=480))
        wait(lambda: len(training.viewer.clients) == 2)
        deaf = training.viewer.clients[min(training.viewer.clients)]
        buffer = deaf.handle._websock_connection.get_message_buffer()
        for number in range(100):
            socket.send(
                camera_message(position=(0.01 * number, 0.0, -3.0), image_width=640, image_height=480)
            )
            other.move(position=(0.01 * number, 0.0, -3.0))
            time.sleep(0.02)
        assert len(buffer.message_from_id) < 300
        count = other.images
        other.move(position=(0.5, 0.5, -3.0))
        other.wait(lambda: other.images > count)
        training.goes_on()
    wait(lambda: not training.viewer.clients)


def test_an_error_while_drawing(training, monkeypatch):
    with Page(training.port) as page:
        page.wait(lambda: page.images)

        def broken(*args: Any) -> Any:
            raise RuntimeError("no picture today")

        with monkeypatch.context() as patch:
            patch.setitem(modes.MODES, "colour", broken)
            page.move(position=(0.5, 0.0, -3.0))
            page.wait(lambda: page.notifications)
            training.goes_on()
        assert page.notifications[0] == ("That did not work", "RuntimeError: no picture today")
        assert any("no picture today" in line for line in training.said)
        count = page.images
        page.wait(lambda: page.images > count)
        time.sleep(0.5)
        assert len(page.notifications) == 1  # not again and again


def test_a_full_disk_on_export(training, monkeypatch):
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.name == "exports":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with Page(training.port) as page:
        page.wait(lambda: page.images)
        with monkeypatch.context() as patch:
            patch.setattr("splat.core.files.os.replace", full)
            page.press("Write and download")
            title, said = page.wait(lambda: page.notifications and page.notifications[0])
            assert title == "That did not work"
            assert "cannot be written (No space left on device)" in said
            training.goes_on()
        assert not list((training.session.folder / "exports").iterdir())
        page.press("Write and download")
        page.wait(lambda: any(title.startswith("Written") for title, _ in page.notifications))


def kill(thread: threading.Thread) -> None:
    """Ends a thread from outside, at its next step in Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_killed_thread_is_started_again(training):
    with Page(training.port) as page:
        page.wait(lambda: page.images)
        (client,) = training.viewer.clients.values()
        first = client.painter._thread
        kill(first)
        wait(lambda: not first.is_alive())
        page.wait(lambda: page.notifications)
        assert page.notifications[0][0] == "Drawing was interrupted"
        count = page.images
        page.move(position=(0.5, 0.0, -3.0))
        page.wait(lambda: page.images > count)
        kill(training.viewer._ticker)
        page.wait(lambda: "SystemExit" in "".join(training.said))
        progress = page.text()
        page.wait(lambda: page.text() != progress)
        training.goes_on()


def test_a_server_that_ends_leaves_the_run_alone(training):
    with Page(training.port) as page:
        page.wait(lambda: page.images)
        page.socket.close_timeout = 0.1
        server = training.viewer.server._websock_server
        training.viewer.server.get_event_loop().call_soon_threadsafe(server._stop_event.set)
        wait(lambda: not server._server_thread.is_alive())
    training.goes_on()
