"""A camera path: keyframes, what lies between, a preview, a video."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from splat.core import orbits
from splat.core.files import replacing
from splat.core.paths import CameraPath, parse_path
from splat.link import Snapshot
from splat.raster.video import write_video
from splat.viewer import frustums
from splat.viewer.actions import value
from splat.viewer.cameras import bulk
from splat.viewer.colours import to_bytes
from splat.viewer.files import new_file, offer
from splat.viewer.jobs import CalledOff, Job
from splat.viewer.keyframes import Keyframe, Keyframes
from splat.viewer.modes import Scene
from splat.viewer.panel import Panel

if TYPE_CHECKING:
    from splat.viewer.client import Client

CURVE, KEYS = "/path/curve", "/path/keyframes"
SIZES = ("960 x 540", "1280 x 720", "1920 x 1080", "3840 x 2160", "1080 x 1920", "1080 x 1080")
_PREVIEW_RATE = 20.0  # camera positions a second
_CURVE_POINTS = 24  # a keyframe interval
_ORBIT = 12  # keyframes
_NONE = "none yet"


class PathPanel(Panel):
    title = "Path"
    icon = "ROUTE"

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._keys = Keyframes()
        self._preview: Job | None = None
        self._video: Job | None = None
        self._curve: Any = None
        self._frames: Any = None

        add = gui.add_button("Add a keyframe here", icon=client.viewer.viser.Icon.PLUS)
        self._at = gui.add_dropdown("Keyframe", [_NONE])
        change = gui.add_button_group("This one", ["Go", "Replace", "Remove"])
        move = gui.add_button_group("Move it", ["Earlier", "Later"])
        self._wait = gui.add_number("Seconds to the next", 2.0, min=0.05, step=0.05)
        self._loop = gui.add_checkbox("Loop", False, hint="the last keyframe leads back to the first")
        self._even = gui.add_checkbox("Constant speed", False, hint="the whole duration stays")
        orbit = gui.add_button(
            "Orbit around the scene", color="gray", hint="keyframes on a circle, in place of these"
        )
        self._said = gui.add_markdown("")
        with gui.add_folder("Fly along it"):
            self._time = gui.add_slider("Time, s", 0.0, 1.0, 0.01, 0.0)
            self._play = gui.add_button("Play", icon=client.viewer.viser.Icon.PLAYER_PLAY)
        with gui.add_folder("Video"):
            self._size = gui.add_dropdown("Resolution", SIZES, initial_value=SIZES[1])
            self._fps = gui.add_number("Frames a second", 30, min=1, max=120, step=1)
            self._make = gui.add_button("Render a video", icon=client.viewer.viser.Icon.VIDEO)
            self._bar = gui.add_progress_bar(0.0, visible=False)
        with gui.add_folder("File"):
            save = gui.add_button(
                "Save as JSON", color="gray", hint="splat render RUN_OR_FILE --path FILE takes it"
            )
            load = gui.add_upload_button("Open a JSON file", color="gray", mime_type="application/json")

        action = client.action
        add.on_click(action(lambda event: self._do(lambda keys: keys.add(self._here()))))
        change.on_click(action(self._change, value))
        move.on_click(action(self._move, value))
        orbit.on_click(action(lambda event: self._orbit()))
        self._at.on_update(action(self._pick))
        self._wait.on_update(action(self._set_wait))
        for control in (self._loop, self._even, self._fps):
            control.on_update(action(lambda event: self._show()))
        self._time.on_update(action(self._scrub))
        self._play.on_click(action(lambda event: self._toggle_preview()))
        self._make.on_click(action(lambda event: self._toggle_video()))
        save.on_click(action(lambda event: self._save()))
        load.on_upload(action(lambda event: self._load(load.value.name, load.value.content)))
        self._show()

    def close(self) -> None:
        for job in (self._preview, self._video):
            if job is not None:
                job.cancel()
        for node in (self._curve, self._frames):
            if node is not None:
                node.remove()

    def path(self, offset: Tensor | None = None) -> CameraPath:
        """The path as it is set up; ValueError where there is no keyframe."""
        width, height = (int(side) for side in self._size.value.split(" x "))
        return self._keys.path(
            width, height, float(self._fps.value), self._loop.value, self._even.value, offset
        )

    # The keyframes.

    def _here(self) -> Keyframe:
        return Keyframe.of(self._client.camera(960, 540))

    def _do(self, edit: Callable[[Keyframes], None]) -> None:
        edit(self._keys)
        self._show()

    def _change(self, what: str) -> None:
        if not len(self._keys):
            return
        if what == "Go":
            self._go()
        elif what == "Replace":
            self._do(lambda keys: keys.replace(self._here()))
        else:
            self._do(lambda keys: keys.remove())

    def _move(self, where: str) -> None:
        self._do(lambda keys: keys.move(-1 if where == "Earlier" else 1))

    def _go(self) -> None:
        self._client.fly_to(self._keys.camera(self._keys.at))

    def _pick(self, event: Any) -> None:
        if event.client_id is None or not len(self._keys):
            return
        self._keys.at = int(self._at.value.split(" ", 1)[0]) - 1
        self._wait.value = self._keys.frames[self._keys.at].seconds
        self._go()

    def _set_wait(self, event: Any) -> None:
        if event.client_id is not None and len(self._keys):
            self._do(lambda keys: keys.wait(float(self._wait.value)))

    def _orbit(self) -> None:
        client = self._client
        cameras = [view.camera for view in client.session.views]
        if not cameras and client.source.snapshot is not None:
            cameras = orbits.around(client.source.snapshot.gaussians.means.cpu(), 960, 540)
        frames = [Keyframe.of(camera, 1.0) for camera in orbits.orbit(cameras, _ORBIT)]
        self._keys = Keyframes(frames, 0)
        self._loop.value = True
        self._show()

    def _show(self) -> None:
        """Bring the list and the lines in the scene up to date."""
        count = len(self._keys)
        if not count:
            self._at.options = [_NONE]
            self._said.content = "Add keyframes where the camera is to pass."
            self._draw(None)
            return
        path = self.path()
        labels = [f"{i + 1} at {float(path.times[i] - path.times[0]):.2f} s" for i in range(count)]
        self._at.options = labels
        self._at.value = labels[self._keys.at]
        self._wait.value = self._keys.frames[self._keys.at].seconds
        self._time.max = max(0.01, round(path.duration, 2))
        frames = len(path.frames()) if count > 1 else 1
        self._said.content = f"{count} keyframes, {path.duration:.1f} s, {frames} frames"
        self._draw(path)

    def _set_visible(self, on: bool) -> None:
        for node in (self._curve, self._frames):
            if node is not None:
                node.visible = on

    def _draw(self, path: CameraPath | None) -> None:
        if path is None:
            self._set_visible(False)
            return
        count = max(2, _CURVE_POINTS * len(self._keys))
        times = path.times[0] + torch.linspace(0, path.duration, count, dtype=torch.float64)
        points = path.evaluate(times)[0].float().numpy()
        lines = np.stack([points[:-1], points[1:]], 1)
        snapshot = self._client.source.snapshot
        depth = 0.05 * (bulk(snapshot.gaussians.means)[1] if snapshot is not None else 1.0)
        cameras = [self._keys.camera(i) for i in range(len(self._keys))]
        marks = frustums.segments(frustums.corners(cameras, depth))
        colours = np.full(marks.shape, 255, dtype=np.uint8)
        here = slice(self._keys.at * frustums.SEGMENTS, (self._keys.at + 1) * frustums.SEGMENTS)
        colours[here] = (255, 180, 0)
        scene = self._client.handle.scene
        style: dict[str, Any] = {"thickness": 2.0, "thickness_units": "screen"}
        # Added anew each time: points and colours must change together.
        self._curve = scene.add_line_segments(CURVE, lines, (255, 180, 0), **style)
        self._frames = scene.add_line_segments(KEYS, marks, colours, **style)

    # The preview.

    def _scrub(self, event: Any) -> None:
        if event.client_id is not None and len(self._keys):
            path = self.path()
            self._client.fly_to(path.at(float(path.times[0]) + float(self._time.value)))

    def _toggle_preview(self) -> None:
        if self._preview is not None and self._preview.running:
            self._preview.cancel()
            return
        path = self.path()
        self._preview = Job(self._client, "preview", lambda job: self._fly(path, job))

    def _fly(self, path: CameraPath, job: Job) -> None:
        """Move the visitor's camera along the path in real time, from where the slider is."""
        self._play.label = "Stop"
        start = float(self._time.value)
        start = 0.0 if start >= path.duration - 0.02 else start
        began = time.monotonic()
        self._set_visible(False)  # the lines would be in the way of what is previewed
        try:
            while not job.cancelled:
                at = start + time.monotonic() - began
                if path.loop:
                    at %= path.duration
                self._client.fly_to(path.at(float(path.times[0]) + min(at, path.duration)))
                self._time.value = round(min(at, path.duration), 2)
                if at >= path.duration:
                    return
                time.sleep(1 / _PREVIEW_RATE)
        finally:
            self._play.label = "Play"
            self._set_visible(True)

    # The video.

    def _toggle_video(self) -> None:
        if self._video is not None and self._video.running:
            self._video.cancel()
            return
        path, snapshot = self.path(), self._client.source.snapshot
        if snapshot is None:
            return
        self._video = Job(self._client, "video", lambda job: self._render(path, snapshot, job))

    def _render(self, path: CameraPath, snapshot: Snapshot, job: Job) -> None:
        file = new_file(self._client.session, "videos", "path", ".mp4")
        self._make.label = "Call the video off"
        self._bar.value, self._bar.visible = 0.0, True
        try:
            write_video(file, self._drawn(path, snapshot, job), path.fps)
        finally:
            self._make.label = "Render a video"
            self._bar.visible = False
        offer(self._client, file)

    @torch.no_grad()
    def _drawn(self, path: CameraPath, snapshot: Snapshot, job: Job) -> Iterator[Tensor]:
        cameras = path.frames()
        heads = snapshot.heads if self._client.painter.look.heads else ()
        background = self._client.session.background
        scene = Scene(snapshot.gaussians, snapshot.sh_degree, background, heads=heads)
        for number, camera in enumerate(cameras):
            if not job.go_on():
                raise CalledOff
            yield to_bytes(scene.image(camera))
            self._bar.value = 100 * (number + 1) / len(cameras)

    # The file.

    def _save(self) -> None:
        text = self.path(self._client.session.offset.cpu()).to_json()
        file = new_file(self._client.session, "paths", "path", ".json")
        with replacing(file) as out:
            out.write(text.encode())
        offer(self._client, file)

    def _load(self, name: str, content: bytes) -> None:
        path = parse_path(content, name)
        self._keys = Keyframes.of(path, -self._client.session.offset.cpu())
        self._loop.value, self._even.value = path.loop, path.constant_speed
        self._fps.value = int(path.fps) if path.fps == int(path.fps) else path.fps
        size = f"{path.width} x {path.height}"
        if size not in self._size.options:
            self._size.options = [*self._size.options, size]
        self._size.value = size
        self._show()
        self._client.notify("Path opened", f"{name}: {len(self._keys)} keyframes", colour="green")
