"""The run: how far it is, and the handles to steer it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from splat.core.clock import clock
from splat.link import Progress, Session
from splat.viewer.actions import value
from splat.viewer.panel import AXES, Panel, State

if TYPE_CHECKING:
    from splat.viewer.client import Client

_PLOT_SECONDS = 1.0
_ADVANCE, _EXTEND = "Train, then pause", "Extend the run"
_PAUSE, _RESUME = "Pause", "Resume"


class TrainPanel(Panel):
    title = "Train"
    icon = "PLAYER_PLAY"

    @classmethod
    def fits(cls, session: Session) -> bool:
        return session.commands is not None and session.progress is not None

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._budget = budget = client.viewer.budget
        self._bar = gui.add_progress_bar(0.0)
        self._text = gui.add_markdown("")
        self._pause = gui.add_button(_PAUSE)
        # What it does is what the visitor read on it, whatever another has done in between.
        self._pause.on_click(
            client.action(lambda label: client.pause(label == _PAUSE), lambda event: event.target.label)
        )
        self._steps = gui.add_number("Steps", initial_value=100, min=1, step=1)
        more = gui.add_button_group(
            "These steps",
            [_ADVANCE, _EXTEND],
            hint="train them and pause, or move the end of the run on by them",
        )
        more.on_click(client.action(self._go_on, value))
        self._saving = gui.add_button("Save a checkpoint", color="gray")
        self._saving.on_click(client.action(lambda event: client.command(lambda t: t.save())))
        self._stop = gui.add_button("Stop, score and export", color="red")
        self._stop.on_click(client.action(lambda event: client.command(lambda t: t.stop())))
        share = gui.add_slider(
            "Viewer takes, %",
            1,
            100,
            1,
            initial_value=round(100 * budget.share),
            hint="of the run's time, at most; while it is paused there is no limit",
        )
        share.on_update(client.action(lambda event: setattr(budget, "share", share.value / 100)))
        self._plots = [
            gui.add_uplot(
                (np.zeros(1), np.zeros(1)),
                ({}, {"label": name, "stroke": colour, "width": 1.5}),
                title=name,
                scales={"x": {"time": False}},
                axes=AXES,
                height=150,
                legend={"show": False},
            )
            for name, colour in (("Loss", "#fa5252"), ("PSNR, dB", "#40c057"), ("Gaussians", "#4dabf7"))
        ]
        self._plotted = (0.0, 0)

    def _go_on(self, how: str) -> None:
        steps = int(self._steps.value)
        self._client.command(lambda trainer: (trainer.advance if how == _ADVANCE else trainer.extend)(steps))

    def update(self, state: State) -> None:
        progress = state.progress
        if progress is None:
            return
        self._bar.value = min(100.0, 100 * progress.step / max(1, progress.end))
        self._text.content = "  \n".join(
            [
                f"**{progress.state}** step {progress.step:,} of {progress.end:,}",
                f"{progress.count:,} Gaussians, loss {progress.loss:.4f}, PSNR {progress.psnr:.2f} dB",
                *([self._speed(progress)] if progress.state == "training" else []),
            ]
        )
        self._pause.label = _RESUME if progress.state == "paused" else _PAUSE
        over = progress.state == "finished"
        for handle in (self._pause, self._saving, self._stop):
            if handle.visible == over:
                handle.visible = not over
        self._plot(state)

    def _speed(self, progress: Progress) -> str:
        left = (progress.end - progress.step) / progress.rate if progress.rate > 0 else None
        eta = "" if left is None else f", {clock(left)} to go"
        return f"{progress.rate:.1f} steps/s{eta}, {self._budget.used:.0%} for the viewer"

    def _plot(self, state: State) -> None:
        at, length = self._plotted
        rows = state.session.history.rows() if state.session.history is not None else []
        if len(rows) == length or time.monotonic() - at < _PLOT_SECONDS:
            return
        self._plotted = time.monotonic(), len(rows)
        table = np.array(rows, dtype=np.float64)
        for column, plot in enumerate(self._plots, 1):
            plot.data = (table[:, 0], table[:, column])
