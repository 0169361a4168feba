"""Commands of the palette (Ctrl/Cmd+K) and their keys. W A S D Q E and the arrows move viser's camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from splat.viewer.modes import MODES

if TYPE_CHECKING:
    from splat.viewer.client import Client


# Keys that are pressed in an input are its own, and viser leaves the focus in a dropdown or checkbox that was clicked.
# So after a click (of a mouse: `detail` counts its clicks) on anything but a field to type in the focus goes back to
# the page. Browsers run no <script> that comes later, but what an image does that cannot be loaded.
_FOCUS = """<img hidden src="data:," onerror="
  if (!window.splatFocus) {
    window.splatFocus = true;
    document.addEventListener('click', ({ target, detail }) => {
      if (detail === 0 || target.closest('input:not([type=checkbox]), textarea, label')) return;
      if (document.activeElement.matches('input, textarea')) document.activeElement.blur();
    });
  }">"""


def add(gui: Any, client: Client) -> None:
    """Register the commands for one visitor, and keep the keys theirs."""
    gui.add_html(_FOCUS)
    session, painter = client.session, client.painter

    def command(label: str, key: str | None, do: Callable[[], Any], hint: str | None = None) -> None:
        handle = gui.add_command(label, description=hint, hotkey=key)
        handle.on_trigger(client.action(lambda event: do()))

    if session.commands is not None:
        command("Pause or resume training", "P", client.toggle_pause)
        command("Train one step", "N", lambda: client.command(lambda t: t.advance(1)), "and pause")
        command("Save a checkpoint", "K", lambda: client.command(lambda t: t.save()))
    command("Next way of showing", "M", lambda: _next_mode(client))
    command("Colours", "C", lambda: painter.set(mode="colour"))
    command("Draw on the server or in the browser", "B", lambda: _other_drawing(client))
    command("Turn upside down", "U", lambda: client.turn_up(-client.up))
    command("Back to the start", "H", client.go_home)
    command("Next photograph", "J", lambda: client.go_to_photograph(1), "fly to where it was taken")
    command("Previous photograph", "L", lambda: client.go_to_photograph(-1))
    if len(client.viewer.sources) > 1:
        command("Next scene", "X", client.show_next)


def _next_mode(client: Client) -> None:
    names = list(MODES)
    client.painter.set(mode=names[(names.index(client.painter.look.mode) + 1) % len(names)])


def _other_drawing(client: Client) -> None:
    client.painter.set(drawn="browser" if client.painter.look.drawn == "server" else "server")
