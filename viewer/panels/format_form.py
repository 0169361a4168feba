"""The part of a panel that asks for a file format and its options."""

from __future__ import annotations

import dataclasses
import threading
import typing
from typing import TYPE_CHECKING, Any

from splat import codecs

if TYPE_CHECKING:
    from splat.viewer.client import Client


class FormatForm:
    """A choice of format, with a field for each of its write options."""

    def __init__(self, gui: Any, client: Client, initial: str = ".ply") -> None:
        self._gui = gui
        self._lock = threading.RLock()
        self._built = ""  # the format that the fields are of
        self._fields: dict[str, Any] = {}
        # meta.json and the like name a whole file, not its end.
        names = [name for name in codecs.extensions() if name.startswith(".")]
        start = initial if initial in names else names[0]
        self._format = gui.add_dropdown("Format", names, initial_value=start)
        self._folder = gui.add_folder("Options", visible=False)
        self._format.on_update(client.action(lambda event: self._rebuild()))
        self._rebuild()

    @property
    def extension(self) -> str:
        return str(self._format.value)

    @property
    def choice(self) -> tuple[str, dict[str, Any]]:
        """The extension, and the options that differ from the format's own defaults, by name."""
        with self._lock:
            self._rebuild()
            defaults = _defaults(self._built)
            chosen = {name: handle.value for name, handle in self._fields.items()}
            options = {name: value for name, value in chosen.items() if value != _shown(defaults[name])}
            return self._built, options

    def _rebuild(self) -> None:
        """Have the fields be those of the format that is chosen; callbacks come from several threads."""
        with self._lock:
            if self._built == self.extension:
                return
            for handle in self._fields.values():
                handle.remove()
            self._built, self._fields = self.extension, {}
            with self._folder:
                for name, default in _defaults(self._built).items():
                    self._fields[name] = self._field(name, default)
            self._folder.visible = bool(self._fields)

    def _field(self, name: str, default: Any) -> Any:
        label = name.replace("_", " ").capitalize()
        choices = _choices(self._built, name)
        if choices:
            return self._gui.add_dropdown(label, choices, initial_value=_shown(default))
        shown = _shown(default)
        if isinstance(shown, bool):
            return self._gui.add_checkbox(label, shown)
        if isinstance(shown, (int, float)):
            return self._gui.add_number(label, shown, step=1 if isinstance(shown, int) else 0.001)
        return self._gui.add_text(label, shown)


def _defaults(extension: str) -> dict[str, Any]:
    """Name -> default of the write options of a format."""
    form = codecs.format_to_write(f"scene{extension}")
    return {field.name: field.default for field in dataclasses.fields(form.options)}


def _choices(extension: str, name: str) -> list[str]:
    """The values of an option that is one of a few strings, else none."""
    hint = typing.get_type_hints(codecs.format_to_write(f"scene{extension}").options)[name]
    return (
        [str(value) for value in typing.get_args(hint)] if typing.get_origin(hint) is typing.Literal else []
    )


def _shown(value: Any) -> Any:
    """A default as a field shows it: what is no number, switch or text is text, which codecs read again."""
    return value if isinstance(value, (bool, int, float, str)) else str(value).lower()
