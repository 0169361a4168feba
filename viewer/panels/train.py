"""The run: how far it is, and the handles to steer it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from splat.link import Session
from splat.viewer.panel import Panel, State

if TYPE_CHECKING:
    from splat.viewer.client import Client

_PLOT_SECONDS = 1.0


class TrainPanel(Panel):
    title = "Train"
    icon = "PLAYER_PLAY"

    @classmethod
    def fits(cls, session: Session) -> bool:
        return session.commands is not None and session.progress is not None

    def build(self, gui: Any, client: Client) -> None:
        budget = client.viewer.budget
        self._bar = gui.add_progress_bar(0.0)
        self._text = gui.add_markdown("")
        self._pause = gui.add_button("Pause")
        self._pause.on_click(client.guard(lambda event: client.toggle_pause()))
        steps = gui.add_number("Steps", initial_value=100, min=1, step=1)
        advance = gui.add_button("Train these steps, then pause")
        advance.on_click(client.guard(lambda event: client.command(lambda t: t.advance(int(steps.value)))))
        extend = gui.add_button("Move the end on by these steps")
        extend.on_click(client.guard(lambda event: client.command(lambda t: t.extend(int(steps.value)))))
        save = gui.add_button("Save a checkpoint")
        save.on_click(client.guard(lambda event: client.command(lambda t: t.save())))
        stop = gui.add_button("Stop, score and export", color="red")
        stop.on_click(client.guard(lambda event: client.command(lambda t: t.stop())))
        share = gui.add_slider(
            "Viewer's share, %",
            1,
            100,
            1,
            initial_value=round(100 * budget.share),
            hint="of the time that the run takes, at most; while it is paused there is no limit",
        )
        share.on_update(client.guard(lambda event: setattr(budget, "share", share.value / 100)))
        self._plots = [
            gui.add_uplot(
                (np.zeros(1), np.zeros(1)),
                ({}, {"label": name, "stroke": colour, "width": 1.5}),
                title=name,
                scales={"x": {"time": False}},
                height=130,
                legend={"show": False},
            )
            for name, colour in (("Loss", "#fa5252"), ("PSNR, dB", "#40c057"), ("Gaussians", "#4dabf7"))
        ]
        self._plotted = (0.0, 0)

    def update(self, state: State) -> None:
        progress = state.progress
        if progress is None:
            return
        self._bar.value = min(100.0, 100 * progress.step / max(1, progress.end))
        left = (progress.end - progress.step) / progress.rate if progress.rate > 0 else None
        eta = "" if left is None or progress.state != "training" else f", {clock(left)} to go"
        self._text.content = (
            f"**{progress.state}** step {progress.step:,} of {progress.end:,}{eta}  \n"
            f"{progress.count:,} Gaussians, {progress.rate:.1f} steps/s  \n"
            f"loss {progress.loss:.4f}, PSNR {progress.psnr:.2f} dB"
        )
        self._pause.label = "Resume" if progress.state == "paused" else "Pause"
        self._plot(state)

    def _plot(self, state: State) -> None:
        at, length = self._plotted
        rows = state.session.history.rows() if state.session.history is not None else []
        if len(rows) == length or time.monotonic() - at < _PLOT_SECONDS:
            return
        self._plotted = time.monotonic(), len(rows)
        table = np.array(rows, dtype=np.float64)
        for column, plot in enumerate(self._plots, 1):
            plot.data = (table[:, 0], table[:, column])


def clock(seconds: float) -> str:
    """A duration for people: 1:05:09 or 3:20."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
