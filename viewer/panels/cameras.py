"""The photographs: where they were taken, how well they are met, and each beside what is drawn from there."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.core import Camera
from splat.link import Session, View
from splat.viewer import frustums
from splat.viewer.actions import value
from splat.viewer.comparing import COMPARISONS
from splat.viewer.jobs import CalledOff, Job
from splat.viewer.modes import Scene
from splat.viewer.panel import Panel, State

if TYPE_CHECKING:
    from splat.viewer.client import Client

NODE = "/cameras"
OVERLAY = "photograph"
_RECOLOUR_SECONDS = 2.0
_SCORE_PIXELS = 480 * 360
_BY_NAME, _BY_LOSS = "by name", "worst first"


class CamerasPanel(Panel):
    title = "Cameras"
    icon = "CAMERA"

    @classmethod
    def fits(cls, session: Session) -> bool:
        return bool(session.views)

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._views = client.session.views
        self._cameras = [view.camera for view in self._views]
        self._scores = torch.full((len(self._views),), math.nan)  # of a finished scene: it has no losses
        self._shown: int | None = None
        self._job: Job | None = None
        self._drawn_before: str | None = None  # where it was drawn before a comparison
        self._coloured: tuple[float, Tensor] | None = None
        self._depth = frustums.depth_for(self._cameras)
        self._corners = frustums.corners(self._cameras, self._depth)
        self._hidden = torch.zeros(len(self._views), dtype=torch.bool)

        self._order = gui.add_dropdown("List", [_BY_NAME, _BY_LOSS])
        self._list = gui.add_dropdown("Photograph", self._labels(range(len(self._views))))
        step = gui.add_button_group("Fly to", ["Previous", "This", "Next"])
        self._facts = gui.add_markdown("")
        self._compare = gui.add_dropdown(
            "Compare", list(COMPARISONS), hint="with the photograph, where one was taken from here"
        )
        self._wipe = gui.add_slider("Wipe", 0.0, 1.0, 0.01, 0.5, visible=False)
        self._show = gui.add_checkbox(
            "Show cameras", True, hint="blue is a low loss, red a high one; click to fly"
        )
        self._size = gui.add_slider("Camera size", 0.1, 5.0, 0.1, 1.0)
        if client.session.commands is None:
            score = gui.add_button("Score every photograph", hint="colours the cameras by their error")
            score.on_click(client.action(lambda event: self._score()))
        self._bar = gui.add_progress_bar(0.0, visible=False)

        self._lines = client.handle.scene.add_line_segments(
            NODE,
            frustums.segments(self._corners),
            frustums.colours(self._losses()),
            thickness=1.5,
            thickness_units="screen",
        )
        self._on_click = client.handle.scene.on_click()(client.action(self._clicked))
        self._order.on_update(client.action(lambda event: self._relist()))
        self._list.on_update(client.action(self._chosen))
        step.on_click(client.action(self._step, value))
        self._compare.on_update(client.action(lambda event: self._set_comparison()))
        self._wipe.on_update(client.action(lambda event: client.painter.redraw()))
        self._show.on_update(client.action(lambda event: self._set_visible()))
        self._size.on_update(client.action(lambda event: self._resize(self._size.value)))

    def update(self, state: State) -> None:
        now = time.monotonic()
        self._follow()
        self._hide()
        if self._coloured is None or now - self._coloured[0] >= _RECOLOUR_SECONDS:
            self._recolour()
        view = None if self._client.pose is None else self._client.standing_at(self._client.camera(64, 48))
        number = None if view is None else next((i for i, v in enumerate(self._views) if v is view), None)
        if number != self._shown:
            self._shown = number
            self._recolour()
        text = self._describe(view)
        if self._facts.content != text:
            self._facts.content = text

    def close(self) -> None:
        if self._job is not None:
            self._job.cancel()
        self._client.painter.look.overlays.pop(OVERLAY, None)
        self._client.handle.scene.remove_click_callback(self._on_click)
        self._lines.remove()

    # The list.

    def _losses(self) -> Tensor:
        known = torch.tensor([view.loss for view in self._views])
        return torch.where(torch.isnan(known), self._scores, known)

    def _labels(self, order: Any) -> list[str]:
        losses = self._losses()
        labels = []
        for i in order:
            view = self._views[i]
            held = ", held out" if view.held_out else ""
            # Sorted by it, a list says what it was sorted by; elsewhere it would be out of date at once.
            told = self._order.value == _BY_LOSS and bool(torch.isfinite(losses[i]))
            known = f", {losses[i]:.4f}" if told else ""
            labels.append(f"{i + 1} {view.name}{held}{known}")
        return labels

    def _relist(self) -> None:
        order, at = list(range(len(self._views))), self._number()
        if self._order.value == _BY_LOSS:
            order = torch.argsort(self._losses().nan_to_num(-math.inf), descending=True).tolist()
        labels = self._labels(order)
        self._list.options = labels
        self._list.value = labels[order.index(at)]

    def _chosen(self, event: Any) -> None:
        if event.client_id is not None:  # a person chose it, not the order of the list
            self._fly(self._number())

    def _number(self) -> int:
        return int(self._list.value.split(" ", 1)[0]) - 1

    def _step(self, which: str) -> None:
        labels = list(self._list.options)
        at = labels.index(self._list.value) if self._list.value in labels else 0
        at = (at + {"Previous": -1, "This": 0, "Next": 1}[which]) % len(labels)
        self._list.value = labels[at]
        self._fly(self._number())

    def _fly(self, number: int) -> None:
        self._client.fly_to(self._cameras[number])

    def _clicked(self, event: Any) -> None:
        if not self._lines.visible or len(self._client.painter.columns) > 1:
            return
        met = frustums.met(self._corners, event.ray_origin, event.ray_direction)
        if met is not None:
            label = next((text for text in self._list.options if text.startswith(f"{met + 1} ")), None)
            if label is not None:
                self._list.value = label
            self._fly(met)

    def _describe(self, view: View | None) -> str:
        if view is None:
            return "Not at a photograph."
        number = next(i for i, other in enumerate(self._views) if other is view)
        camera = view.camera
        loss = float(self._losses()[number])
        said = "" if math.isnan(loss) else f", {'loss' if not math.isnan(view.loss) else 'error'} {loss:.4f}"
        held = ", held out" if view.held_out else ""
        return f"At **{view.name}**: {camera.width} x {camera.height}{held}{said}"

    # The lines.

    def _resize(self, factor: float) -> None:
        self._corners = frustums.corners(self._cameras, factor * self._depth)
        self._lines.points = frustums.segments(self._corners, self._hidden)

    def _set_visible(self) -> None:
        # Beside each other the pictures lie elsewhere than the lines do.
        self._lines.visible = self._show.value and self._compare.value != "beside"

    def _follow(self) -> None:
        """Draw the cameras where they are held to have been by now: a run may refine them."""
        cameras = [view.camera for view in self._views]
        if any(now is not before for now, before in zip(cameras, self._cameras, strict=True)):
            self._cameras = cameras
            self._resize(self._size.value)

    def _hide(self) -> None:
        """Leave out the cameras around the visitor, whose lines would cross all that he sees."""
        pose = self._client.pose
        if pose is None:
            return
        hidden = frustums.too_near(self._corners, torch.from_numpy(pose.position).double())
        if not torch.equal(hidden, self._hidden):
            self._hidden = hidden
            self._lines.points = frustums.segments(self._corners, hidden)

    def _recolour(self) -> None:
        losses = self._losses()
        marks = torch.cat(
            [losses.nan_to_num(-1.0), torch.tensor([-1.0 if self._shown is None else self._shown])]
        )
        if self._coloured is None or not torch.equal(marks, self._coloured[1]):
            self._lines.colors = frustums.colours(losses, self._shown)
        self._coloured = (time.monotonic(), marks)

    # The photograph.

    def _set_comparison(self) -> None:
        painter = self._client.painter
        self._wipe.visible = self._compare.value == "wipe"
        self._set_visible()
        compare = COMPARISONS[self._compare.value]
        if compare is None:
            painter.look.overlays.pop(OVERLAY, None)
            painter.set(drawn=self._drawn_before or painter.look.drawn)
            self._drawn_before = None
            return

        def overlay(image: Tensor, camera: Camera) -> Tensor:
            return compare(image, self._client.photograph, camera, float(self._wipe.value))

        painter.look.overlays[OVERLAY] = overlay
        # The browser's own splats are not a picture that something could be laid over.
        self._drawn_before = self._drawn_before or painter.look.drawn
        painter.set(drawn="server")
        if self._shown is None:
            self._fly(self._number())

    def _score(self) -> None:
        if self._job is None or not self._job.running:
            self._job = Job(self._client, "score", self._score_all)

    def _score_all(self, job: Job) -> None:
        """Mean absolute difference of every photograph to what is drawn, at a small size."""
        source = self._client.source
        snapshot = source.snapshot
        if snapshot is None:
            return
        background = source.session.background
        scene = Scene(snapshot.gaussians, snapshot.sh_degree, background, heads=snapshot.heads)
        self._bar.visible = True
        try:
            for i, view in enumerate(self._views):
                if not job.go_on():
                    raise CalledOff
                self._scores[i] = difference(view, scene)
                self._bar.value = 100 * (i + 1) / len(self._views)
        finally:
            self._bar.visible = False
        self._recolour()
        self._relist()


def difference(view: View, scene: Scene) -> float:
    """Mean absolute difference of a photograph to the scene, both at most _SCORE_PIXELS."""
    camera = view.camera
    shrink = max(1.0, (camera.width * camera.height / _SCORE_PIXELS) ** 0.5)
    width, height = max(1, round(camera.width / shrink)), max(1, round(camera.height / shrink))
    planes = view.photo().permute(2, 0, 1)[None].float() / 255
    truth = torch.nn.functional.interpolate(planes, (height, width), mode="area")[0].permute(1, 2, 0)
    return float((scene.image(camera.resized(width, height)).cpu().clamp(0, 1) - truth).abs().mean())
