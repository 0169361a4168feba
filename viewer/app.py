"""The application: scenes, visitors, and the thread that keeps their pages up to date."""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from splat.core import Camera, DeviceError
from splat.link import Progress, Session, Snapshot
from splat.viewer.budget import Budget
from splat.viewer.cameras import first_view, pivot, up_direction
from splat.viewer.client import Client
from splat.viewer.editing import Editor
from splat.viewer.panel import State
from splat.viewer.serving import Address
from splat.viewer.threads import use_threads

TICK_SECONDS = 0.25
LATE_TICK_SECONDS = 1.0  # while the budget is used up
_GREETING_SECONDS = 1.0  # that a visitor waits for his page at most, while the budget is used up


class Source:
    """A session as the viewer follows it: its newest snapshot.

    Attributes:
        version: counts snapshots, 0 before the first.
        editor: takes Gaussians out, and puts them back.
    """

    def __init__(self, session: Session, budget: Budget) -> None:
        self.session = session
        self.editor = Editor(session)
        self.version = 0
        self.snapshot: Snapshot | None = None
        self._budget = budget
        self._lock = threading.Lock()
        self._places: tuple[list[Camera], Tensor] = ([], torch.zeros(0, 3))

    @property
    def places(self) -> Tensor:
        """[V, 3] where the photographs were taken, as far as that is known by now."""
        cameras, places = self._places
        now = [view.camera for view in self.session.views]
        if len(now) != len(cameras) or any(a is not b for a, b in zip(now, cameras, strict=True)):
            positions = [camera.position.float().cpu() for camera in now]
            places = torch.stack(positions)
            self._places = now, places
        return places

    def poll(self) -> bool:
        """Take the newest snapshot; whether it is a new one."""
        with self._lock:
            version, snapshot = self.session.slot.latest(timeout=0)
            if version == self.version:
                return False
            assert snapshot is not None
            self.version, self.snapshot = version, snapshot
        self._budget.spend(snapshot.seconds)
        return True

    def request(self) -> None:
        """Have the trainer make another snapshot, if the scene has changed."""
        self.session.slot.wanted = True

    def take(self, go_on: Callable[[], bool]) -> Snapshot | None:
        """The scene as it is now, with all that a file should hold of it; None where `go_on` said no."""
        return self.snapshot if self.session.take is None else self.session.take(go_on)

    def progress(self) -> Progress | None:
        return self.session.progress() if self.session.progress is not None else None


class Viewer:
    """Serves sessions to browsers, from the construction on until `stop`.

    Nothing here runs on the thread that trains, and nothing that fails here reaches it.

    Attributes:
        viser: the module, imported when the first viewer starts.
        server: viser's.
        sources: the scenes.
        budget: what all visitors together may take from training.
        cores: threads that may be used where nothing trains, or while the training lends the machine; beside its
            steps it is one.
        clients: the visitors, by viser's number.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        address: Address | None = None,
        share: float = 0.1,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """
        Args:
            share: of the machine's time for the viewer while something trains.
            log: writes a line for the user; by default the first session's.

        Raises:
            UsageError: viser is not installed.
            DeviceError: no port is free, or the host is not one of this machine.
        """
        from splat.viewer.serving import hear_failures, import_viser, serve

        self.viser = import_viser()
        self.budget = Budget(share)
        self.sources = [Source(session, self.budget) for session in sessions]
        self.clients: dict[int, Client] = {}
        self.cores = torch.get_num_threads()
        self._log = log or sessions[0].log
        self._stopped = threading.Event()
        self._placed = False
        self.address = address or Address()
        self.server, self.port = serve(self.viser, self.address, sessions[0].name, self.log)
        self._deafen = hear_failures(self.server, self.log)
        self.server.gui.configure_theme(
            show_logo=False, show_share_button=False, dark_mode=True, control_width="large"
        )
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        self._ticker = threading.Thread(target=self._keep_ticking, daemon=True, name="viewer-ticker")
        self._ticker.start()

    def log(self, line: str, error: BaseException | None = None) -> None:
        """A line for the user; with the traceback of an error that is a defect of ours."""
        with contextlib.suppress(Exception):  # a log that is closed by now, or a full disk
            self._log(line)
            if error is not None and not isinstance(error, (OSError, DeviceError)):
                where = traceback.extract_tb(error.__traceback__)[-1:]
                for frame in where:
                    self._log(f"viewer:   at {frame.filename}:{frame.lineno} in {frame.name}")

    def stop(self) -> None:
        """Disconnect everybody and give the port back."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        for client in list(self.clients.values()):
            client.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()
        self._deafen()

    async def _connected(self, handle: Any) -> None:
        # In a thread of its own: it may wait, and viser's few threads have other work.
        threading.Thread(target=self._greet, args=(handle,), daemon=True, name="viewer-greet").start()

    def _greet(self, handle: Any) -> None:
        """Make the page of a visitor, unless he has left by then."""
        number, patience = int(handle.client_id), time.monotonic() + _GREETING_SECONDS
        # A page costs some hundredths of a second: crowds that come and go are kept within the budget, too.
        while self._here(number) and self.budget.wait() > 0 and time.monotonic() < patience:
            time.sleep(0.05)
        if not self._here(number):
            return
        began = time.monotonic()
        self.clients[number] = client = Client(self, handle)
        for source in self.sources:
            source.poll()
            source.request()
        client.guard(self._place)()
        client.guard(client.start)()
        self.budget.spend(time.monotonic() - began)
        if not self._here(number):  # he has left meanwhile, perhaps before there was anything to forget
            self._forget(number)
            client.close()

    def _here(self, number: int) -> bool:
        return number in self.server.get_clients() and not self._stopped.is_set()

    def _place(self) -> None:
        """Where "Reset view" leads, and where pages open: at the first photograph, or in front of the scene."""
        source = self.sources[0]
        if self._placed or source.snapshot is None:
            return
        self._placed = True
        gaussians = source.snapshot.gaussians
        cameras = [view.camera for view in source.session.views]
        up = up_direction(cameras)
        first = first_view(cameras, gaussians, up)
        initial = self.server.initial_camera
        initial.position = first.position.double().cpu().numpy()
        initial.look_at = pivot(first, gaussians).double().numpy()
        initial.up = up.double().numpy()
        initial.fov = 2 * math.atan(first.height / (2 * first.fy))

    async def _disconnected(self, handle: Any) -> None:
        # Awaited in viser's loop: its pool of threads may be gone by now, and the loop must not wait.
        number = int(handle.client_id)
        threading.Thread(target=self._forget, args=(number,), daemon=True, name="viewer-close").start()

    def _forget(self, number: int) -> None:
        """A visitor has left; nothing of him stays."""
        client = self.clients.pop(number, None)
        if client is not None:
            began = time.monotonic()
            client.close()
            self.budget.spend(time.monotonic() - began)
        if not self.clients:
            for source in self.sources:
                source.session.slot.wanted = False

    def _keep_ticking(self) -> None:
        """Ticks until the viewer stops, even if somebody tries to end this thread."""
        while not self._stopped.is_set():
            try:
                self._tick()
            except BaseException as error:
                self.log(f"viewer: {error!r} in the thread that keeps pages up to date; it goes on")

    def _tick(self) -> None:
        # What this thread and viser's loop use is the viewer's as well; elsewhere than on Linux and BSD a
        # thread's clock is not to be had, and goes without.
        loop = self.server._websock_server._server_thread
        find = getattr(time, "pthread_getcpuclockid", None)
        clock = find(loop.ident) if find is not None and loop is not None else None
        before = 0.0
        while not self._stopped.wait(LATE_TICK_SECONDS if self.budget.wait() > 0 else TICK_SECONDS):
            try:
                self._update()
                used = time.thread_time() + (time.clock_gettime(clock) if clock is not None else 0.0)
                self.budget.spend(used - before)
                before = used
            except Exception as error:
                self.log(f"viewer: {type(error).__name__}: {error}", error)

    def _update(self) -> None:
        use_threads(1)
        training = False
        for source in self.sources:
            progress = source.progress()
            training |= progress is not None and progress.state == "training"
        self.budget.unlimited = not training
        for client in list(self.clients.values()):
            client.revive()
            source = client.source
            client.update(State(source.session, source.snapshot, source.version, source.progress()))
