"""How the scene is drawn, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splat.viewer.modes import MODES
from splat.viewer.panel import Panel, State

if TYPE_CHECKING:
    from splat.viewer.client import Client

HERE, BROWSER = "on the server", "in the browser"


class ViewPanel(Panel):
    title = "View"
    icon = "EYE"

    def build(self, gui: Any, client: Client) -> None:
        self._client = client
        painter, look = client.painter, client.painter.look
        self._on_server: list[Any] = []  # what is of use only there
        if len(client.viewer.sources) > 1:
            names = [f"{i + 1} {source.session.name}" for i, source in enumerate(client.viewer.sources)]
            scene = gui.add_dropdown(
                "Scene", names, initial_value=names[client.viewer.sources.index(client.source)]
            )
            scene.on_update(client.action(lambda event: client.show(names.index(scene.value))))
            beside = gui.add_checkbox("Side by side", look.beside, visible=look.drawn == "server")
            self._on_server.append(beside)
            beside.on_update(client.action(lambda event: painter.set(beside=beside.value)))
        drawn = gui.add_dropdown(
            "Drawn", [HERE, BROWSER], initial_value=HERE if look.drawn == "server" else BROWSER
        )
        mode = gui.add_dropdown("Show", list(MODES), initial_value=look.mode)
        self._heads = gui.add_checkbox(
            "Networks on pictures",
            look.heads,
            hint="what strategies such as compensation have learned to do to a picture after it is rendered",
            visible=False,
        )
        self._heads.on_update(client.action(lambda event: painter.set(heads=self._heads.value)))
        height = gui.add_slider("Tallest picture", 180, 2160, 60, initial_value=look.height)
        cap = gui.add_slider("Splats at most", 10_000, 2_000_000, 10_000, initial_value=look.cap)

        @drawn.on_update
        @client.action
        def _(event: Any) -> None:
            here = drawn.value == HERE
            for control in self._on_server:
                control.visible = here
            cap.visible = not here
            painter.set(drawn="server" if here else "browser")

        self._on_server += [mode, height]
        cap.visible = look.drawn == "browser"
        mode.on_update(client.action(lambda event: painter.set(mode=mode.value)))
        height.on_update(client.action(lambda event: painter.set(height=int(height.value))))
        cap.on_update(client.action(lambda event: painter.set(cap=int(cap.value))))
        flip = gui.add_button("Turn upside down", color="gray")
        flip.on_click(client.action(lambda event: client.turn_up(-client.up)))
        home = gui.add_button("Back to the start", color="gray")
        home.on_click(client.action(lambda event: client.go_home()))
        self._drawn, self._mode = drawn, mode
        self._note = gui.add_markdown("")
        self._said = ""

    def update(self, state: State) -> None:
        look, last = self._client.painter.look, self._client.painter.last
        # Hotkeys change the look as well.
        for handle, value in (
            (self._mode, look.mode),
            (self._drawn, HERE if look.drawn == "server" else BROWSER),
        ):
            if handle.value != value:
                handle.value = value
        has_heads = state.snapshot is not None and bool(state.snapshot.heads)
        if self._heads.visible != (has_heads and look.drawn == "server"):
            self._heads.visible = not self._heads.visible
        if state.snapshot is None:
            note = "waiting for the first snapshot"
        elif "size" in last:
            note = f"{last['size'][0]} x {last['size'][1]}, {1000 * last['seconds']:.0f} ms"
        elif last:
            note = f"{last['splats']:,} splats in the browser"
        else:
            note = ""
        if note != self._said:
            self._note.content = self._said = note
