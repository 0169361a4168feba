"""One visitor: his camera, his page, his picture."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, SplatError
from splat.link import Controls, Session, View
from splat.viewer import hotkeys
from splat.viewer.actions import Actions
from splat.viewer.cameras import Pose, bulk, first_view, pivot, up_direction
from splat.viewer.drawing import Painter, default_drawing
from splat.viewer.panel import Panel, State
from splat.viewer.photos import seen_from
from splat.viewer.threads import use_threads

if TYPE_CHECKING:
    from splat.viewer.app import Source, Viewer

AT_A_PHOTOGRAPH = 0.01  # distance from where it was taken, in distances to what is looked at
_PICTURES = ("BackgroundImageMessage", "GaussianSplatsMessage", "SceneNodeUpdateMessage")
_QUIET_SECONDS = 10.0  # before the same failure is told again


class Client:
    """A browser that is connected.

    Attributes:
        viewer: the application.
        handle: viser's ClientHandle.
        number: viser's number of the client.
        source: the scene that is shown.
        painter: draws it; `painter.look` says how.
        pose: the camera as the browser last told, None before it did.
        up: [3] which way is up.
        panels: of the page.
    """

    def __init__(self, viewer: Viewer, handle: Any) -> None:
        self.viewer = viewer
        self.handle = handle
        self.number = int(handle.client_id)
        self.source: Source = viewer.sources[0]
        self.pose: Pose | None = None
        self.up = torch.tensor([0.0, -1.0, 0.0])
        self.panels: list[Panel] = []
        self.closed = False
        self.painter = Painter(self)
        self._lock = threading.RLock()
        self._told: dict[str, float] = {}
        self._photo: tuple[str, Tensor] | None = None
        self._visited = 0  # number of a view
        self._actions = Actions(f"viewer-{self.number}-actions")

    @property
    def session(self) -> Session:
        return self.source.session

    def start(self) -> None:
        """Place the camera, build the page, begin to draw."""
        self.handle.camera.on_update(self._hear_camera)
        self.go_home()
        self._moved(self.handle.camera)
        gaussians = self._gaussians()
        if gaussians is not None:
            self.painter.look.drawn = default_drawing(gaussians, self.viewer.cores)
        self.painter.start()
        self.build()

    def build(self) -> None:
        """The page of the scene that is shown, from nothing."""
        from splat.viewer.panels import PANELS

        with self._lock:
            self._close_panels()
            if self.closed:
                return
            gui = self.handle.gui
            gui.reset()
            tabs = gui.add_tab_group()
            icons = self.viewer.viser.Icon
            for kind in PANELS:
                if not kind.fits(self.session):
                    continue
                panel = kind()
                with tabs.add_tab(kind.title, getattr(icons, kind.icon) if kind.icon else None):
                    self.guard(panel.build)(gui, self)
                self.panels.append(panel)
            hotkeys.add(gui, self)

    def show(self, number: int) -> None:
        """Show another of the viewer's scenes."""
        self.source = self.viewer.sources[number]
        self._photo = None
        self.painter.look.filters.clear()
        self.painter.look.overlays.clear()
        self.build()
        self.painter.redraw()

    def show_next(self) -> None:
        """Show the scene after this one."""
        sources = self.viewer.sources
        self.show((sources.index(self.source) + 1) % len(sources))

    def update(self, state: State) -> None:
        with self._lock:
            for panel in list(self.panels):
                self.guard(panel.update)(state)

    def revive(self) -> None:
        """Start the drawing again if its thread has died."""
        if self.painter.died:
            self.viewer.log("viewer: a drawing thread had ended and was started again")
            self.notify("Drawing was interrupted", "its thread had ended and was started again", colour="red")
            self.painter.start()

    def close(self) -> None:
        self.closed = True
        self._actions.close()
        self.painter.close()
        with self._lock:
            self._close_panels()

    def _close_panels(self) -> None:
        for panel in self.panels:
            self.guard(panel.close)()
        self.panels = []

    # The camera.

    def camera(self, width: int, height: int) -> Camera:
        """The visitor's view at a size."""
        if self.pose is None:
            raise RuntimeError("the browser has not told where its camera is")
        return self.pose.camera(width, height)

    def go_home(self) -> None:
        """Stand where a visitor stands at first."""
        cameras = [view.camera for view in self.session.views]
        gaussians = self._gaussians()
        self.turn_up(up_direction(cameras))
        self.fly_to(first_view(cameras, gaussians, self.up))
        if gaussians is not None:
            radius = bulk(gaussians.means)[1]
            self.handle.camera.near = min(0.01, 1e-3 * radius)
            self.handle.camera.far = max(1e3, 1e3 * radius)

    def go_to_photograph(self, by: int) -> None:
        """Stand where the photograph was taken that comes `by` after the one visited last."""
        views = self.session.views
        if not views:
            self.notify("No photographs", "the scene came without its dataset (splat view FILE --data DATA)")
            return
        self._visited = (self._visited + by) % len(views)
        self.fly_to(views[self._visited].camera)

    def fly_to(self, camera: Camera) -> None:
        """Stand where `camera` does, look its way, turn around what it shows."""
        target = pivot(camera, self._gaussians())
        pose = camera.world_to_camera.double().cpu()
        mine = self.handle.camera
        with self.handle.atomic():
            mine.position = camera.position.double().cpu().numpy()
            mine.look_at = target.double().numpy()
            mine.up_direction = (-pose[1, :3]).numpy()
            mine.fov = 2 * float(torch.atan(torch.tensor(camera.height / (2 * camera.fy))))

    def turn_up(self, direction: Tensor) -> None:
        """Make `direction` [3] the one that points up on the screen and around which the camera turns."""
        self.up = torch.nn.functional.normalize(direction.float().cpu(), dim=0)
        self.handle.scene.set_up_direction(tuple(self.up.tolist()))
        self.handle.camera.up_direction = self.up.double().numpy()

    def standing_at(self, camera: Camera) -> View | None:
        """The view that was taken where `camera` stands, if one was."""
        views = self.session.views
        if not views or self.pose is None:
            return None
        position = camera.position.float().cpu()
        places = self.source.places
        distances = (places - position).norm(dim=1)
        nearest = int(distances.argmin())
        reach = AT_A_PHOTOGRAPH * float(torch.from_numpy(self.pose.look_at - self.pose.position).norm())
        return views[nearest] if float(distances[nearest]) <= reach else None

    def opening(self) -> dict[str, Any]:
        """What a page of the scene is to open on (codecs.format.Metadata): what the visitor sees."""
        background = list(self.session.background)
        if self.pose is None:
            return {"background": background}
        pose = self.pose
        across = 2 * math.atan(math.tan(pose.fov / 2) * pose.width / max(1, pose.height))
        view = {
            "position": pose.position.tolist(),
            "target": pose.look_at.tolist(),
            "up": self.up.tolist(),
            "fov": [math.degrees(across), math.degrees(pose.fov)],
        }
        return {"view": view, "background": background}

    def photograph(self, camera: Camera) -> tuple[Tensor, Tensor] | None:
        """What a photograph shows of the view of `camera`, [H, W, 3] in [0, 1], and where ([H, W] bool); None
        where none was taken from there."""
        view = self.standing_at(camera)
        if view is None:
            return None
        if self._photo is None or self._photo[0] != view.name:
            self._photo = view.name, view.photo()
        return seen_from(self._photo[1], view.camera, camera)

    def _gaussians(self) -> Gaussians | None:
        return self.source.snapshot.gaussians if self.source.snapshot is not None else None

    async def _hear_camera(self, camera: Any) -> None:
        # In viser's loop, where sixty of them a second cost least.
        self.guard(self._moved)(camera)

    def _moved(self, camera: Any) -> None:
        self.pose = Pose.of(camera)
        self.painter.moved()

    # What panels need.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with whatever it raises told to the visitor and the log."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not self.closed:
                    self.failed(getattr(function, "__qualname__", "viewer"), error)
                return None

        return guarded

    def action(
        self, function: Callable[[Any], Any], take: Callable[[Any], Any] = lambda event: event
    ) -> Callable[[Any], Any]:
        """`function`, guarded, as viser is to call it back: in its turn among the visitor's actions.

        Args:
            function: is given what `take` finds in the event (see actions.value) at once.
        """
        guarded = self.guard(function)

        async def hear(event: Any) -> None:  # in viser's loop, where events come in their order
            taken = take(event)
            self._actions.add(lambda: guarded(taken))

        return hear

    def work(self, name: str, job: Callable[[], Any]) -> threading.Thread:
        """Run a longer job in a thread of its own, guarded; beside a training it has one core."""

        def run() -> None:
            use_threads(self.viewer.cores if self.viewer.budget.unlimited else 1)
            self.guard(job)()

        thread = threading.Thread(target=run, name=f"viewer-{name}", daemon=True)
        thread.start()
        return thread

    def command(self, do: Callable[[Controls], Any]) -> None:
        """Have the trainer do something between two steps; what it raises is told to the visitor."""
        if self.session.commands is not None:
            self.session.commands.send(do, lambda error: self.failed("command", error))

    def pause(self, pausing: bool) -> None:
        """Pause the training, or have it go on."""
        self.command(lambda trainer: trainer.pause() if pausing else trainer.resume())

    def toggle_pause(self) -> None:
        """Pause the training if it runs, have it go on if it is paused."""
        progress = self.source.progress()
        self.pause(progress is None or progress.state != "paused")

    def notify(self, title: str, body: str = "", *, colour: str | None = None, seconds: float = 8.0) -> None:
        """A notification on the visitor's page."""
        if not self.closed:
            self.handle.add_notification(title, body, auto_close_seconds=seconds, color=colour)

    def failed(self, what: str, error: BaseException) -> None:
        """Tell the visitor and the log; the same failure not again and again."""
        text = str(error) if isinstance(error, SplatError) else f"{type(error).__name__}: {error}"
        now = time.monotonic()
        if now - self._told.get(text, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return
        self._told[text] = now
        self.viewer.log(f"viewer: {what}: {text}", error)
        self.notify("That did not work", text, colour="red", seconds=15.0)

    def congested(self) -> bool:
        """Whether the picture before still waits to be sent: a browser that does not keep up gets fewer.

        viser has no public word for it; where its inside changes, nothing is ever held back.
        """
        try:
            buffer = self.handle._websock_connection.get_message_buffer()
            with buffer.buffer_lock:
                return any(type(m).__name__ in _PICTURES for m in buffer.message_from_id.values())
        except AttributeError:
            return False
