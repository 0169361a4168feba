"""A smaller scene, looked at and scored before anything is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from splat.codecs import search
from splat.core import Camera, Gaussians, orbits
from splat.link import Snapshot
from splat.viewer import compressing
from splat.viewer.compressing import Outcome, Plan
from splat.viewer.files import new_file, offer, stem_of
from splat.viewer.jobs import CalledOff, Job
from splat.viewer.panel import Panel, State
from splat.viewer.panels.format_form import FormatForm
from splat.viewer.statistics import size

if TYPE_CHECKING:
    from splat.viewer.client import Client

FILTER = "compress"
_ROWS = 8  # of the table
_AROUND = 8  # views of a scene without cameras
Stamp = tuple[int, int]  # step and revision, which tell what scene it was


class CompressPanel(Panel):
    title = "Compress"
    icon = "ARROWS_MINIMIZE"

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._job: Job | None = None
        self._outcome: tuple[Outcome, Snapshot] | None = None
        self._orders: dict[str, tuple[Stamp, Tensor]] = {}
        self._before: tuple[Stamp, float] | None = None
        self._rows: list[str] = []

        self._share = gui.add_slider("Leave out, %", 0, 95, 1, 40)
        self._method = gui.add_dropdown("Which ones", search.names(), initial_value="opacity")
        self._degree = gui.add_slider("SH degree at most", 0, 3, 1, 3)
        self._form = FormatForm(gui, client, initial=".sog")
        self._try = gui.add_button("Preview", icon=client.viewer.viser.Icon.EYE)
        self._said = gui.add_markdown("Nothing is changed until you say so.")
        self._show = gui.add_checkbox("Show the preview", True, visible=False)
        self._table = gui.add_markdown("")
        self._prune = gui.add_button("Leave them out of the scene", color="red", visible=False)
        self._write = gui.add_button("Write and download the file", visible=False)

        self._try.on_click(client.action(lambda event: self._toggle()))
        self._show.on_update(client.action(lambda event: self._redraw()))
        self._prune.on_click(client.action(lambda event: self._commit()))
        self._write.on_click(client.action(lambda event: self._save()))

    def update(self, state: State) -> None:
        if self._outcome is not None and state.snapshot is not None:
            changed = state.snapshot.revision != self._outcome[1].revision
            if changed:
                self._forget()

    def close(self) -> None:
        if self._job is not None:
            self._job.cancel()
        self._client.painter.look.filters.pop(FILTER, None)

    def plan(self) -> Plan:
        """What the fields say."""
        return Plan(
            float(self._share.value) / 100,
            str(self._method.value),
            int(self._degree.value),
            *self._form.choice,
        )

    def _toggle(self) -> None:
        if self._job is not None and self._job.running:
            self._job.cancel()
            return
        plan = self.plan()
        self._job = Job(self._client, "compress", lambda job: self._preview(plan, job))

    def _preview(self, plan: Plan, job: Job) -> None:
        self._try.label = "Call it off"
        try:
            snapshot = self._client.source.take(job.go_on)
            if snapshot is None:
                raise CalledOff
            self._said.content = "Ranking the Gaussians ..."
            order = self._ranked(snapshot, plan.method, job)
            self._said.content = f"Writing {plan.extension}, reading it back ..."
            outcome = compressing.carry_out(snapshot.gaussians, order, plan, snapshot.metadata)
            budget = self._client.viewer.budget
            slow = "" if budget.unlimited else f", with {budget.share:.0%} of the machine"
            self._said.content = f"Scoring{slow} ..."
            score = self._scored(snapshot, outcome, job)
        except BaseException:
            self._said.content = "Nothing is changed until you say so."
            raise
        finally:
            self._try.label = "Preview"
        self._outcome = (outcome, snapshot)
        self._tell(outcome, snapshot, score)
        self._show.visible = self._prune.visible = True
        self._write.visible = self._client.session.export is not None
        self._prune.disabled = not bool(outcome.dropped.any())
        self._redraw()

    def _cameras(self, snapshot: Snapshot) -> list[Camera]:
        """Those that training sees; where there are none, some around the scene."""
        cameras = [view.camera for view in self._client.session.views if not view.held_out]
        if cameras:
            return cameras
        around = orbits.around(snapshot.gaussians.means.cpu(), 320, 240)
        return orbits.orbit(around, _AROUND)

    def _ranked(self, snapshot: Snapshot, method: str, job: Job) -> Tensor:
        known = self._orders.get(method)
        if known is None or known[0] != _stamp(snapshot):
            order = compressing.ranked(snapshot.gaussians, method, self._cameras(snapshot), job.go_on)
            self._orders[method] = known = (_stamp(snapshot), order)
        return known[1]

    def _scored(self, snapshot: Snapshot, outcome: Outcome, job: Job) -> str:
        """PSNR on the held-out photographs and how it has changed; without photographs, that of pictures
        against those of the scene as it is."""
        session = self._client.session
        if session.evaluate is None:
            cameras = self._cameras(snapshot)
            like = compressing.likeness(
                snapshot.gaussians, outcome.gaussians, cameras, session.background, job.go_on
            )
            return f"{like:.2f} dB to it"
        if self._before is None or self._before[0] != _stamp(snapshot):
            before = session.evaluate(snapshot.gaussians, job.go_on, snapshot.heads)
            if before is None:
                raise CalledOff
            self._before = (_stamp(snapshot), before)
        after = session.evaluate(outcome.gaussians, job.go_on, ())
        if after is None:
            raise CalledOff
        return f"{after:.2f} dB ({after - self._before[1]:+.2f})"

    def _tell(self, outcome: Outcome, snapshot: Snapshot, score: str) -> None:
        plan, kept = outcome.plan, len(outcome.gaussians)
        text = (
            f"**{size(outcome.bytes)}**, {kept:,} of {len(snapshot.gaussians):,} Gaussians, PSNR **{score}**"
        )
        self._said.content = "\n".join([text, *(f"- {note}" for note in outcome.notes)])
        options = ", ".join(f"{name} {value}" for name, value in plan.options.items())
        what = f"-{plan.share:.0%} {plan.method}, SH {outcome.written.sh_degree}"
        form = f"{plan.extension} {options}".strip()
        self._rows = [f"| {what} | {form} | {size(outcome.bytes)} | {score} |", *self._rows][:_ROWS]
        self._table.content = "\n".join(
            ["| left out | as | bytes | PSNR |", "|---|---|---|---|", *self._rows]
        )

    def _redraw(self) -> None:
        filters = self._client.painter.look.filters
        if self._outcome is not None and self._show.value:
            small = self._outcome[0].gaussians

            def shown(gaussians: Gaussians) -> Gaussians:
                return small

            filters[FILTER] = shown
        else:
            filters.pop(FILTER, None)
        self._client.painter.redraw()

    def _forget(self) -> None:
        """The scene is another one now."""
        self._outcome = None
        self._orders.clear()
        self._show.visible = self._prune.visible = self._write.visible = False
        self._said.content = "The scene has changed: preview again."
        self._redraw()

    def _commit(self) -> None:
        """Prune the scene for good: a run trains on with what is left, a finished scene takes what was written."""
        if self._outcome is None:
            return
        outcome, snapshot = self._outcome
        client, editor = self._client, self._client.source.editor
        if client.session.commands is not None:
            editor.remove(outcome.dropped, snapshot, lambda error: client.failed("pruning", error))
        else:
            editor.replace(outcome.written, outcome.metadata, snapshot)
        client.source.request()

    def _save(self) -> None:
        """Write what the preview showed."""
        export = self._client.session.export
        if self._outcome is None or export is None:
            return
        outcome, client = self._outcome[0], self._client

        def write(job: Job) -> None:
            file = new_file(client.session, "exports", stem_of(client.session), outcome.plan.extension)
            offer(client, file, export(outcome.written, file, outcome.plan.options, outcome.metadata))

        self._job = Job(client, "export", write)


def _stamp(snapshot: Snapshot) -> Stamp:
    return snapshot.step, snapshot.revision
