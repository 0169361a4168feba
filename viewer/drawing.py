"""Draws one visitor's picture: coarse while the camera moves, full when it rests, within the budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.viewer import browser
from splat.viewer.budget import Ladder
from splat.viewer.cameras import Pose
from splat.viewer.colours import to_bytes
from splat.viewer.modes import MODES, Scene
from splat.viewer.threads import use_threads

if TYPE_CHECKING:
    from splat.viewer.app import Source
    from splat.viewer.client import Client

POLL_SECONDS = 0.05
REST_SECONDS = 0.2  # without a camera message, after which the camera counts as at rest
MOVING_SECONDS = 0.06  # a picture may take while the camera moves and nothing trains
BURST_SECONDS = 0.1  # the same beside a training, out of what was saved up
MOVING_RATE = 6.0  # pictures a second that the budget is spread over once nothing is saved up
FRESH_SECONDS = 1.0  # between two pictures of a scene in training that the budget is spread over
FRESH_RATE = 4.0  # of these pictures a second, at most: nobody sees a scene change faster
# Counted of what a picture takes: after it caches are to be filled and threads to be woken. Runs of
# benchmarks/viewer.py on two cores lost between 1.0 and 1.25 of what the pictures took.
DISTURBANCE = 1.25
TURN_SECONDS = 0.5  # that a picture waits for the training to lend the machine
COARSEST_FRESH = 2  # rung of the ladder, for these
BROWSER_SECONDS = 1.0  # between two sets of splats for the browser, at least
BROWSER_CAP = 400_000
SERVER_LIMIT = 500_000  # Gaussians for each core, above which a CPU leaves drawing to the browser
SPLATS = "/splats"

Filter = Callable[[Gaussians], Gaussians]
Overlay = Callable[[Tensor, Camera], Tensor]


@dataclass
class Look:
    """What a visitor wants to see; change it through `Painter.set`.

    Attributes:
        drawn: "server" (our rasterizer) or "browser" (viser's splats).
        mode: of MODES; for the server.
        beside: whether every scene is shown, in columns; on the server.
        heads: whether networks that were trained on pictures finish them.
        height: the tallest picture to draw, pixels.
        cap: most splats for the browser.
        filters: name -> what is drawn of the Gaussians (a crop box, a preview of pruning); must be pure.
        overlays: name -> what becomes of a picture [H, W, 3] in [0, 1] (a photograph over it).
    """

    drawn: str = "server"
    mode: str = "colour"
    beside: bool = False
    heads: bool = True
    height: int = 1080
    cap: int = BROWSER_CAP
    filters: dict[str, Filter] = field(default_factory=dict)
    overlays: dict[str, Overlay] = field(default_factory=dict)


class Painter:
    """A thread that keeps one visitor's picture up to date. It reads snapshots, and never the trainer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.look = Look()
        self.ladder = Ladder()
        self.frames = 0  # pictures sent
        self.last: dict[str, Any] = {}  # size, seconds and rung of the latest picture
        self._revision = 0
        self._moved_at = 0.0
        self._done: tuple[Any, ...] | None = None  # what the latest picture showed
        self._rung = 0
        self._took = 0.0  # seconds that the latest picture took, 0 where none was due
        self._drawn_at = 0.0
        self._splats: Any = None  # the handle in the browser
        self._behind: Source | None = None  # the scene whose colour is behind them
        self._lines = True  # whether lines and boxes in the scene are shown
        self._filtered: dict[int, tuple[tuple[int, int], Gaussians]] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        thread = threading.Thread(target=self._run, daemon=True, name=f"viewer-{self.client.number}")
        thread.start()
        self._thread = thread  # not before: one that is yet to start would be taken for one that has died

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def died(self) -> bool:
        """Whether the thread has ended though nobody asked it to."""
        return self._thread is not None and not self.alive and not self._closed

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def moved(self) -> None:
        """The camera has moved."""
        self._moved_at = time.monotonic()
        self._wake.set()

    @property
    def columns(self) -> Sequence[Source]:
        """The scenes that are drawn, from left to right."""
        viewer = self.client.viewer
        return viewer.sources if self.look.beside and self.look.drawn == "server" else [self.client.source]

    def set(self, **changes: Any) -> None:
        """Change the look, and draw again."""
        for name, value in changes.items():
            setattr(self.look, name, value)
        self.redraw()

    def redraw(self) -> None:
        """Draw again: a filter, an overlay or what they depend on has changed."""
        self._revision += 1
        self._wake.set()

    def _run(self) -> None:
        budget = self.client.viewer.budget
        while not self._closed:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            began = time.thread_time()
            try:
                if not self._closed:
                    self._took = 0.0
                    self._keep_up()
            except Exception as error:
                self.client.failed("drawing", error)
                self._wake.wait(1.0)
            budget.spend(max(self._took, time.thread_time() - began))
            if self.frames and (wait := budget.wait()):
                time.sleep(min(wait, POLL_SECONDS))  # whatever the camera does meanwhile

    def _keep_up(self) -> None:
        """Draw what is due, if anything is."""
        client = self.client
        budget = client.viewer.budget
        client.source.poll()
        if client.pose is None or client.source.snapshot is None or client.congested():
            if client.source.snapshot is None:
                client.source.request()
            return
        moving = time.monotonic() - self._moved_at < REST_SECONDS
        if budget.wait() > 0 and self.frames:  # a new visitor does not wait for his first picture
            return
        if not moving and (budget.unlimited or time.monotonic() - self._drawn_at >= 1 / FRESH_RATE):
            client.source.request()
        if self.look.drawn == "browser":
            self._to_browser()
        else:
            self._to_background(client.pose, moving)

    # Drawn here.

    def _to_background(self, pose: Pose, moving: bool) -> None:
        if self._splats is not None:
            self._splats.remove()
            self._splats = None
        client, look, sources = self.client, self.look, self.columns
        for source in sources:
            source.poll()
        size = (pose.width, pose.height)
        view = (pose.position.tobytes(), pose.wxyz.tobytes(), pose.fov, size, self._revision, len(sources))
        wanted = (*view, *(source.version for source in sources))
        full = _full_size(pose, look.height)
        if wanted == self._done and (self._rung == 0 or moving):
            return
        same_view = self._done is not None and self._done[: len(view)] == view
        rung = self._choose(full, moving, refine=wanted == self._done, fresh=same_view)
        size = self.ladder.size(full, rung)
        with self._machine():
            began = time.monotonic()
            image = self.picture(pose, size)
        client.handle.scene.set_background_image(image.numpy(), "jpeg", jpeg_quality=90 if rung == 0 else 75)
        self._show_lines(len(sources) == 1)
        client.handle.flush()
        seconds = time.monotonic() - began
        self._took = DISTURBANCE * seconds
        self.ladder.record(rung, seconds)
        self._done, self._rung, self._drawn_at = wanted, rung, time.monotonic()
        self.frames += 1
        self.last = {"size": size, "seconds": seconds, "rung": rung}

    @contextmanager
    def _machine(self) -> Iterator[None]:
        """Every core for a picture, between two steps of the training; one of them where it does not lend them."""
        viewer, turns = self.client.viewer, self.client.session.turns
        if viewer.budget.unlimited or turns is None:
            use_threads(viewer.cores if viewer.budget.unlimited else 1)
            yield
            return
        with turns.borrow(TURN_SECONDS) as lent:
            use_threads(viewer.cores if lent else 1)
            yield

    def _choose(self, full: tuple[int, int], moving: bool, refine: bool, fresh: bool) -> int:
        """The rung of the next picture.

        `refine`: all is as in the latest picture, which was a coarse one; `fresh`: only the scene has changed.
        """
        budget = self.client.viewer.budget
        if moving:
            if budget.unlimited:
                return self.ladder.choose(full, MOVING_SECONDS)
            spread = budget.share / MOVING_RATE
            return self.ladder.choose(full, max(spread, BURST_SECONDS if budget.saved > 0.05 else 0.0))
        if refine:
            middle = self.ladder.choose(full, 0.4)
            return middle if middle < self._rung else 0
        if fresh and not budget.unlimited:
            return min(COARSEST_FRESH, self.ladder.choose(full, budget.share * FRESH_SECONDS))
        return self.ladder.choose(full, 0.4)

    def picture(self, pose: Pose, size: tuple[int, int]) -> Tensor:
        """[H, W, 3] uint8: what the visitor sees at the size, with overlays."""
        look = self.look
        width, height = size
        sources = self.columns
        columns = []
        for number, source in enumerate(sources):
            camera = pose.camera(width, height, number, len(sources))
            snapshot = source.snapshot
            if snapshot is None:
                columns.append(torch.zeros(height, camera.width, 3, dtype=torch.uint8))
                continue
            gaussians = snapshot.gaussians
            if source is self.client.source:  # what panels do is about the scene that they are of
                gaussians = self.filtered(number, source.version, gaussians)
            scene = Scene(
                gaussians,
                snapshot.sh_degree,
                source.session.background,
                self.client.photograph,
                snapshot.heads if look.heads else (),
            )
            image = MODES[look.mode](scene, camera)
            for overlay in list(look.overlays.values()):
                image = overlay(image.cpu(), camera)
            columns.append(to_bytes(image))
        return torch.cat(columns, 1) if len(columns) > 1 else columns[0]

    def filtered(self, number: int, version: int, gaussians: Gaussians) -> Gaussians:
        """The Gaussians after every filter; kept until snapshot or filters change."""
        if not self.look.filters:
            return gaussians
        key = (version, self._revision)
        if self._filtered.get(number, (None, None))[0] != key:
            kept = gaussians
            for change in list(self.look.filters.values()):
                kept = change(kept)
            self._filtered[number] = (key, kept)
        return self._filtered[number][1]

    def _show_lines(self, on: bool) -> None:
        """The browser draws them for one picture of its whole window: in columns they would lie elsewhere."""
        if on != self._lines:
            self.client.handle.scene.set_global_visibility(on)
            self._lines = on

    # Drawn in the browser.

    def _to_browser(self) -> None:
        client, source, look = self.client, self.client.source, self.look
        wanted = ("browser", source.version, self._revision)
        now = time.monotonic()
        late = self._splats is None or self._done is None or self._done[2:] != (self._revision,)
        if wanted == self._done or not (late or now - self._drawn_at >= BROWSER_SECONDS):
            return
        assert source.snapshot is not None
        use_threads(client.viewer.cores if client.viewer.budget.unlimited else 1)
        chosen = browser.splats(self.filtered(0, source.version, source.snapshot.gaussians), look.cap)
        arrays = (chosen.centers, chosen.covariances, chosen.rgbs, chosen.opacities)
        self._show_lines(True)
        with client.handle.atomic():
            if self._splats is None or self._behind is not source:
                background = torch.tensor(source.session.background)[None, None]
                client.handle.scene.set_background_image(to_bytes(background).numpy(), "png")
                self._behind = source
            if self._splats is None:
                self._splats = client.handle.scene.add_gaussian_splats(SPLATS, *arrays, scale=chosen.scale)
            else:
                self._splats.set_gaussians(*arrays)
                if self._splats.scale != chosen.scale:
                    self._splats.scale = chosen.scale
        self._took = time.monotonic() - now
        self._done, self._rung, self._drawn_at = wanted, 0, now
        self.frames += 1
        self.last = {"splats": len(chosen.centers), "seconds": time.monotonic() - now}


def default_drawing(gaussians: Gaussians, cores: int) -> str:
    """ "server" or "browser": which of them this machine does better."""
    few = len(gaussians) <= SERVER_LIMIT * cores
    return "server" if few or gaussians.device.type != "cpu" else "browser"


def _full_size(pose: Pose, height: int) -> tuple[int, int]:
    """The canvas, or as much smaller as makes it at most `height` tall."""
    factor = min(1.0, height / max(1, pose.height))
    return max(1, round(pose.width * factor)), max(1, round(pose.height * factor))
