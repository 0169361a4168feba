"""A page on which a model grows while structure from motion finds it: cameras, points, the progress of the stages.

All visitors see the same: nothing is drawn here, the browser draws points and lines.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable
from typing import Any

import torch

from splat.core import Camera
from splat.link import Growth, SparseModel
from splat.viewer import frustums
from splat.viewer.cameras import overview, up_direction
from splat.viewer.serving import Address, hear_failures, import_viser, serve

POINTS, CAMERAS = "/points", "/cameras"
_TICK_SECONDS = 0.25
_MOST = 200_000  # points for the browser
_POINT = 1 / 400  # size of a point, in distances from which the whole is seen
_AWAY = 0.2  # of that distance: by as much the view of the whole moves before visitors are moved
_TILTED = math.cos(math.radians(10))


class GrowthViewer:
    """Serves the page from the construction on until `stop`; what fails here stays here.

    Attributes:
        server: viser's.
        address, port: where it listens.
    """

    def __init__(self, growth: Growth, address: Address | None = None) -> None:
        """
        Raises:
            UsageError: viser is not installed.
            DeviceError: no port is free, or the host is not one of this machine.
        """
        viser = import_viser()
        self.growth = growth
        self.address = address or Address()
        self.server, self.port = serve(viser, self.address, growth.name, self._log)
        self._deafen = hear_failures(self.server, self._log)
        self.server.gui.configure_theme(
            show_logo=False, show_share_button=False, dark_mode=True, control_width="medium"
        )
        self._version = 0
        self._model: SparseModel | None = None
        self._overview: Camera | None = None
        self._points: Any = None
        self._lines: Any = None
        self._failed = ""
        self._build()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="viewer-growth")
        self._thread.start()

    def stop(self) -> None:
        """Disconnect everybody and give the port back."""
        self._stopped.set()
        self._thread.join(5)
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()
        self._deafen()

    def _log(self, line: str) -> None:
        with contextlib.suppress(Exception):  # a log that is closed by now, or a full disk
            self.growth.log(line)

    def _guard(self, function: Callable[[], Any]) -> None:
        """Do it; what it raises is a line of the log, once."""
        try:
            function()
        except Exception as error:
            text = f"viewer: {type(error).__name__}: {error}"
            if text != self._failed:
                self._failed = text
                self._log(text)

    def _run(self) -> None:
        while not self._stopped.wait(_TICK_SECONDS):
            self._guard(self._update)

    # The page.

    def _build(self) -> None:
        gui = self.server.gui
        self._done = gui.add_markdown("")
        self._now = gui.add_markdown("")
        self._bar = gui.add_progress_bar(0.0)
        self._facts = gui.add_markdown("No photograph has a pose yet.")
        self._follow = gui.add_checkbox("Keep all of it in view", True)
        size = gui.add_slider("Point size", 0.1, 5.0, 0.1, 1.0)
        depth = gui.add_slider("Camera size", 0.1, 5.0, 0.1, 1.0)
        whole = gui.add_button("See all of it", color="gray")
        self._size, self._depth = size, depth
        for handle in (size, depth):
            handle.on_update(lambda event: self._guard(self._draw))
        whole.on_click(lambda event: self._guard(lambda: self._place([event.client])))

    def _update(self) -> None:
        clients = list(self.server.get_clients().values())
        self.growth.slot.wanted = bool(clients)
        progress = self.growth.progress()
        said = (
            (self._done, "\n".join(f"- {line}" for line in progress.done)),
            (self._now, f"**{progress.now}**" if progress.now else ""),
        )
        for handle, text in said:
            if handle.content != text:
                handle.content = text
        self._bar.value = 100 * min(1.0, max(0.0, progress.share))
        version, model = self.growth.slot.latest(timeout=0)
        if version != self._version and model is not None and model.cameras:
            self._version = version
            fresh = set(model.cameras) - set(self._model.cameras if self._model is not None else ())
            self._model, self._fresh = model, fresh
            self._draw()
            if self._look():
                self._place(clients if self._follow.value else [])

    # The model.

    def _draw(self) -> None:
        """Points as they are coloured, cameras grey and the latest ones white."""
        model = self._model
        if model is None:
            return
        cameras = list(model.cameras.values())
        fresh = torch.tensor([name in self._fresh for name in model.cameras])
        corners = frustums.corners(cameras, self._depth.value * frustums.depth_for(cameras))
        step = max(1, math.ceil(len(model.points) / _MOST))
        self._facts.content = (
            f"**{len(cameras):,}** photographs have a pose, **{len(model.points):,}** points"
        )
        scene = self.server.scene
        with self.server.atomic():
            # A node of the same name takes the place of the one before.
            self._lines = scene.add_line_segments(
                CAMERAS,
                frustums.segments(corners),
                frustums.colours(torch.full((len(cameras),), math.nan), fresh),
                thickness=1.5,
                thickness_units="screen",
            )
            self._points = scene.add_point_cloud(
                POINTS,
                model.points[::step].numpy(),
                model.colours[::step].numpy(),
                point_size=self._size.value * _POINT * self._distance(),
                point_shape="circle",
                precision="float32",
                point_shading="flat",
            )

    def _distance(self) -> float:
        """From where the whole is seen."""
        camera, target, _ = self._view()
        return float((camera.position.float() - target).norm())

    def _view(self) -> tuple[Camera, torch.Tensor, torch.Tensor]:
        """A camera that sees all of the model, the point [3] that it looks at, and up [3]."""
        assert self._model is not None
        cameras = list(self._model.cameras.values())
        up = up_direction(cameras)
        return (*overview(cameras, self._model.points, up), up)

    def _look(self) -> bool:
        """Take the view of the whole; whether it is another one than before."""
        camera, target, up = self._view()
        before = self._overview
        if before is not None:
            away = float((camera.position - before.position).norm())
            tilted = float(camera.world_to_camera[1, :3] @ before.world_to_camera[1, :3]) < _TILTED
            if away < _AWAY * float((camera.position.float() - target).norm()) and not tilted:
                return False
        self._overview = camera
        initial = self.server.initial_camera
        initial.position, initial.look_at = camera.position.double().numpy(), target.double().numpy()
        initial.up, initial.fov = up.double().numpy(), _field(camera)
        self.server.scene.set_up_direction(tuple(up.tolist()))
        return True

    def _place(self, clients: list[Any]) -> None:
        """Have these visitors see all of it."""
        if self._model is None:
            return
        camera, target, up = self._view()
        for client in clients:
            with client.atomic():
                client.camera.position = camera.position.double().numpy()
                client.camera.look_at = target.double().numpy()
                client.camera.up_direction = up.double().numpy()
                client.camera.fov = _field(camera)


def _field(camera: Camera) -> float:
    """Vertical field of view, radians."""
    return 2 * math.atan(camera.height / (2 * camera.fy))
