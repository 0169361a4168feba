"""What runs: the strategies' numbers as they are logged, and the panels that they describe themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splat.link import Entry, Number, PanelData, Session
from splat.viewer.panel import Panel, State

if TYPE_CHECKING:
    from splat.viewer.client import Client


class StrategiesPanel(Panel):
    title = "Strategies"
    icon = "ADJUSTMENTS"

    @classmethod
    def fits(cls, session: Session) -> bool:
        return session.panels is not None

    def build(self, gui: Any, client: Client) -> None:
        self._gui = gui
        self._client = client
        self._folders: dict[str, _Folder] = {}
        self._all = gui.add_folder(None)
        self._show()

    def update(self, state: State) -> None:
        self._show()

    def _show(self) -> None:
        assert self._client.session.panels is not None
        for data in self._client.session.panels():
            folder = self._folders.get(data.title)
            if folder is None or not folder.fits(data):
                if folder is not None:
                    folder.remove()
                with self._all:
                    # Known before it is filled: what a strategy's own code raises there happens once.
                    self._folders[data.title] = folder = _Folder(self._gui, self._client, data)
                folder.fill(self._gui, data)
            folder.show(data)


class _Folder:
    """One panel of data: its values as a table, the rest as handles."""

    def __init__(self, gui: Any, client: Client, data: PanelData) -> None:
        self._client = client
        self._shape = _shape(data)
        self._handles: dict[str, Any] = {}
        self._folder = gui.add_folder(data.title)
        self._table: Any = None

    def fill(self, gui: Any, data: PanelData) -> None:
        """Add the handles, then the table."""
        with self._folder:
            try:
                for entry in data.entries:
                    if entry.kind != "value":
                        self._handles[entry.label] = self._handle(gui, entry)
            finally:
                self._table = gui.add_markdown("")

    def fits(self, data: PanelData) -> bool:
        return self._shape == _shape(data)

    def remove(self) -> None:
        self._folder.remove()

    def show(self, data: PanelData) -> None:
        rows = []
        for entry in data.entries:
            if entry.read is None:
                continue
            value = entry.read()
            handle = self._handles.get(entry.label)
            if handle is None:
                rows.append(f"| {entry.label} | {number(value)} |")
            elif handle.value != value and entry.kind != "button":
                handle.value = value
        text = "\n".join(["| | |", "|---|---|", *rows]) if rows else ""
        if self._table.content != text:
            self._table.content = text

    def _handle(self, gui: Any, entry: Entry) -> Any:
        hint = entry.hint or None
        if entry.kind == "button":
            handle = gui.add_button(entry.label, hint=hint)
            handle.on_click(self._client.action(lambda event: self._write(entry, None)))
            return handle
        value = entry.read() if entry.read is not None else entry.low
        if entry.kind == "switch":
            handle = gui.add_checkbox(entry.label, bool(value), hint=hint)
        else:
            start = min(max(float(value), entry.low), entry.high)
            handle = gui.add_slider(entry.label, entry.low, entry.high, entry.step, start, hint=hint)

        @self._client.action
        def changed(event: Any) -> None:
            if event.client_id is not None:  # a person, and not `show`
                self._write(entry, handle.value)

        handle.on_update(changed)
        return handle

    def _write(self, entry: Entry, value: Any) -> None:
        write = entry.write
        if write is not None:
            self._client.command(lambda trainer: write(value))


def _shape(data: PanelData) -> tuple[tuple[str, str], ...]:
    """What a folder is built for: its handles; values come and go in the table."""
    return tuple((entry.label, entry.kind) for entry in data.entries if entry.kind != "value")


def number(value: Number) -> str:
    """A value for people: five digits, thousands apart."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.5g}"
    return str(value)
