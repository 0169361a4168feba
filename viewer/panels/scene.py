"""The scene: what it holds, and what is to be taken out of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.link import Snapshot
from splat.viewer import selecting, statistics
from splat.viewer.actions import value
from splat.viewer.jobs import Job
from splat.viewer.panel import AXES, Panel, State
from splat.viewer.panels.crop import CropBox
from splat.viewer.selecting import Criteria

if TYPE_CHECKING:
    from splat.viewer.client import Client

FILTER = "selection"
_COUNT_SECONDS = 1.0
_REPLACE, _ADD, _SUBTRACT = "replace", "add", "take away"


class ScenePanel(Panel):
    title = "Scene"
    icon = "BOX"

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._chosen: tuple[Tensor, Snapshot] | None = None
        self._isolation: tuple[Snapshot, Tensor] | None = None
        self._job: Job | None = None
        self._version = -1
        self._counted_at = 0.0

        self._facts = gui.add_markdown("")
        with gui.add_folder("Distributions", expand_by_default=False):
            self._plots = [_bars(client, gui, title) for title in ("Largest scale, log10", "Opacity")]
        with gui.add_folder("Selection"):
            self._said = gui.add_markdown("Nothing is selected.")
            self._delete = gui.add_button("Delete the selection", color="red", disabled=True)
            self._edit = gui.add_button_group("Change it", ["Invert", "Clear"])
            self._undo = gui.add_button("Undo the last deletion", color="gray")
        with gui.add_folder("Rectangle"):
            self._how = gui.add_dropdown("A rectangle will", [_REPLACE, _ADD, _SUBTRACT])
            drag = gui.add_checkbox(
                "Drag on the picture", False, hint="or hold Shift while dragging, without this switch"
            )
        with gui.add_folder("Floaters", expand_by_default=False):
            self._isolated = gui.add_slider(
                "Isolated by", 1.0, 15.0, 0.25, 5.0, hint="robust standard deviations; 15 is off"
            )
            self._faint = gui.add_slider("Fainter than", 0.0, 0.5, 0.005, 0.0, hint="opacity; 0 is off")
            self._large = gui.add_slider(
                "Larger than", 0.0, 200.0, 1.0, 0.0, hint="times the median; 0 is off"
            )
            self._live = gui.add_checkbox("Preview while sliding", True)
            find = gui.add_button("Find floaters", color="gray")
        with gui.add_folder("Crop box", expand_by_default=False):
            self._box = CropBox(gui, client)
            select = gui.add_button("Select what is outside", color="gray")

        client.handle.scene.on_rect_select(modifier="shift")(client.action(self._rectangle))
        drag.on_update(client.action(lambda event: self._drag(drag.value)))
        self._delete.on_click(client.action(lambda event: self._remove()))
        self._undo.on_click(client.action(lambda event: client.source.editor.restore(self._failed)))
        self._edit.on_click(client.action(self._change, value))
        find.on_click(client.action(lambda event: self._find(fresh=True)))
        for slider in (self._isolated, self._faint, self._large):
            slider.on_update(client.action(lambda event: self._slid()))
        select.on_click(client.action(lambda event: self._outside()))

    def update(self, state: State) -> None:
        snapshot = state.snapshot
        if snapshot is None or state.version == self._version:
            return
        if self._chosen is not None and self._stale(snapshot):
            self._select(None)
        now = time.monotonic()
        if state.progress is not None and now - self._counted_at < _COUNT_SECONDS:
            return  # a scene in training changes all the time
        self._version, self._counted_at = state.version, now
        gaussians = snapshot.gaussians
        text = (
            f"**{len(gaussians):,}** Gaussians, SH degree {gaussians.sh_degree}, "
            f"{statistics.size(statistics.memory(gaussians))} in memory"
        )
        if self._client.session.commands is not None:
            text += f", after step {snapshot.step:,}"
        self._facts.content = text
        found = (statistics.scale_histogram(gaussians), statistics.opacity_histogram(gaussians))
        for plot, histogram in zip(self._plots, found, strict=True):
            plot.data = (histogram.centres, histogram.counts)

    def close(self) -> None:
        if self._job is not None:
            self._job.cancel()
        self._client.painter.look.filters.pop(FILTER, None)
        self._client.handle.scene.remove_rect_select_callback("all")
        self._box.close()

    # What is selected.

    def _stale(self, snapshot: Snapshot) -> bool:
        """Whether the selection is of a scene that people have changed since."""
        return self._chosen is not None and snapshot.revision != self._chosen[1].revision

    def _select(self, chosen: Tensor | None, of: Snapshot | None = None) -> None:
        """Show, and remember, what is selected of a snapshot."""
        painter = self._client.painter
        if chosen is None or of is None or not bool(chosen.any()):
            self._chosen = None
            painter.look.filters.pop(FILTER, None)
            self._said.content = "Nothing is selected."
        else:
            self._chosen = (chosen, of)
            count = int(chosen.sum())
            self._said.content = f"**{count:,}** of {len(chosen):,} selected ({count / len(chosen):.2%})"
            if of.rows is not None:
                self._said.content += f", as they were after step {of.step:,}"
            marked = selecting.marked(of.gaussians, chosen)
            painter.look.filters[FILTER] = lambda gaussians: self._box.cropped(marked)
        self._delete.disabled = self._chosen is None
        painter.redraw()

    def _combine(self, found: Tensor, of: Snapshot) -> None:
        how = self._how.value
        before = self._chosen[0] if self._chosen is not None and self._chosen[1] is of else None
        if before is None or how == _REPLACE:
            self._select(torch.zeros_like(found) if how == _SUBTRACT else found, of)
        else:
            self._select(before | found if how == _ADD else before & ~found, of)

    def _basis(self) -> Snapshot | None:
        """The snapshot that a selection goes on with, or begins with."""
        if self._chosen is not None and self._how.value != _REPLACE:
            return self._chosen[1]
        return self._client.source.snapshot

    def _change(self, what: str) -> None:
        snapshot = self._client.source.snapshot
        if what == "Invert" and self._chosen is not None:
            self._select(~self._chosen[0], self._chosen[1])
        elif what == "Invert" and snapshot is not None:
            self._select(torch.ones(len(snapshot.gaussians), dtype=torch.bool), snapshot)
        else:
            self._select(None)

    def _remove(self) -> None:
        if self._chosen is None:
            return
        chosen, of = self._chosen
        self._client.source.editor.remove(chosen, of, self._failed)
        self._client.source.request()
        self._select(None)

    def _failed(self, error: Exception) -> None:
        self._client.failed("edit", error)

    # Ways to select.

    def _drag(self, on: bool) -> None:
        scene = self._client.handle.scene
        scene.remove_rect_select_callback("all")
        scene.on_rect_select(modifier="shift")(self._client.action(self._rectangle))
        if on:
            scene.on_rect_select()(self._client.action(self._rectangle))

    def _rectangle(self, event: Any) -> None:
        snapshot = self._basis()
        pose = self._client.pose
        if snapshot is None or pose is None:
            return
        columns = self._client.painter.columns
        column = columns.index(self._client.source)
        camera = pose.camera(pose.width, pose.height, column, len(columns))
        low, high = ((len(columns) * x - column, y) for x, y in (event.screen_min, event.screen_max))
        means = snapshot.gaussians.means
        found = selecting.in_rectangle(means, camera, low, high).cpu()
        self._combine(self._box.holds(means) & found, snapshot)

    def _outside(self) -> None:
        snapshot = self._client.source.snapshot
        if snapshot is not None:
            self._select(~self._box.holds(snapshot.gaussians.means, always=True), snapshot)

    def _slid(self) -> None:
        if self._live.value:
            self._find(fresh=False)

    def _find(self, fresh: bool) -> None:
        if self._job is not None:
            self._job.cancel()
        self._job = Job(self._client, "floaters", lambda job: self._find_floaters(job, fresh))

    def _find_floaters(self, job: Job, fresh: bool) -> None:
        """Select what the sliders say; distances are measured on a `fresh` snapshot, or where none are known."""
        snapshot = self._client.source.snapshot
        if snapshot is None:
            return
        criteria = Criteria(
            isolated=self._isolated.value if self._isolated.value < 15 else None,
            faint=self._faint.value or None,
            large=self._large.value or None,
        )
        known = self._isolation
        if known is None or fresh or known[0].revision != snapshot.revision:
            self._said.content = "Measuring distances between neighbours ..."
            known = self._isolation = (snapshot, selecting.isolation(snapshot.gaussians.means))
        found = selecting.floaters(known[0].gaussians, criteria, known[1])
        if job.go_on():
            self._select(found, known[0])


def _bars(client: Client, gui: Any, title: str) -> Any:
    empty = statistics.histogram(torch.zeros(0), 0, 1)
    return gui.add_uplot(
        (empty.centres, empty.counts),
        ({}, {"label": "Gaussians", "stroke": "#4dabf7", "fill": "#4dabf755", "width": 1.0}),
        title=title,
        scales={"x": {"time": False}},
        axes=AXES,
        height=150,
        legend={"show": False},
    )
