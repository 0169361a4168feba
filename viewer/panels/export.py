"""The scene as a file, in any format, written on the server and sent to the browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from splat import codecs
from splat.codecs import search
from splat.core import UsageError
from splat.link import Session
from splat.viewer.files import new_file, offer, stem_of
from splat.viewer.jobs import Job
from splat.viewer.panel import Panel, State
from splat.viewer.panels.format_form import FormatForm

if TYPE_CHECKING:
    from splat.viewer.client import Client


class ExportPanel(Panel):
    title = "Export"
    icon = "DOWNLOAD"

    @classmethod
    def fits(cls, session: Session) -> bool:
        return session.export is not None

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        self._job: Job | None = None
        self._told: tuple[int, str, int] | None = None
        self._name = gui.add_text("Name", stem_of(client.session))
        self._degree = gui.add_slider("SH degree at most", 0, 3, 1, 3)
        self._form = FormatForm(gui, client)
        self._lost = gui.add_markdown("")
        self._write = gui.add_button("Write and download", icon=client.viewer.viser.Icon.DOWNLOAD)
        self._write.on_click(client.action(lambda event: self._start()))

    def update(self, state: State) -> None:
        snapshot = state.snapshot
        if snapshot is None:
            return
        told = (state.version, self._form.extension, int(self._degree.value))
        if told == self._told:
            return
        self._told = told
        some = snapshot.gaussians.select(
            torch.arange(min(1, len(snapshot.gaussians)))
        )  # what a format lacks does not depend on how many there are
        some = search.lower_degree(some, int(self._degree.value))
        losses = codecs.losses(some, f"scene{self._form.extension}")
        text = "\n".join([f"{len(snapshot.gaussians):,} Gaussians", *(f"- {line}" for line in losses)])
        if self._lost.content != text:
            self._lost.content = text

    def close(self) -> None:
        if self._job is not None:
            self._job.cancel()

    def _start(self) -> None:
        if self._job is not None and self._job.running:
            self._client.notify("One file at a time", "the one before is still being written")
            return
        self._job = Job(self._client, "export", self._export)

    def _export(self, job: Job) -> None:
        export = self._client.session.export
        assert export is not None
        stem = str(self._name.value).strip()
        # The page may be open to others: a name must not lead out of the folder.
        if not re.fullmatch(r"[\w-][\w. -]*", stem):
            raise UsageError(
                f"{stem!r} is no name for a file here: use letters, digits, dots, dashes, spaces"
            )
        extension, options = self._form.choice
        file = new_file(self._client.session, "exports", stem, extension)
        self._write.disabled, self._write.label = True, "Writing ..."
        try:
            snapshot = self._client.source.take(job.go_on)
            if snapshot is None:
                return
            whole, count = snapshot.gaussians, len(snapshot.gaussians)
            scene = search.lower_degree(whole, int(self._degree.value))
            known, notes = search.kept_metadata(
                snapshot.metadata, torch.arange(count), count, as_learned=scene is whole
            )
            if "view" in codecs.format_to_write(file).holds:
                known.update(self._client.opening())
            notes += export(scene, file, options, known)
        finally:
            self._write.disabled, self._write.label = False, "Write and download"
        offer(self._client, file, notes)
