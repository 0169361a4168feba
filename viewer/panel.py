"""The seam between the application and its panels: one panel, one tab of the page, one file in panels/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from splat.link import Progress, Session, Snapshot

if TYPE_CHECKING:
    from splat.viewer.client import Client

# Of plots: room for numbers, and enough of them, in little height.
AXES: tuple[Any, Any] = (
    {"size": 28, "space": 60, "ticks": {"show": False}},
    {"size": 58, "space": 24, "ticks": {"show": False}},
)


@dataclass(frozen=True)
class State:
    """How things stand when panels are brought up to date.

    Attributes:
        snapshot: the newest one, None before the first; `version` counts them.
        progress: of the run, None where nothing trains.
    """

    session: Session
    snapshot: Snapshot | None
    version: int
    progress: Progress | None


class Panel:
    """One tab of one visitor's page. Every visitor has instances of his own.

    Callbacks that `build` attaches to handles are wrapped in `client.guard`, so that what they raise becomes
    a notification and a line in the log. What takes longer than a moment goes through `client.work`.

    Class attributes:
        title: of the tab.
        icon: a name of viser.Icon, in capitals, or None.
    """

    title: ClassVar[str]
    icon: ClassVar[str | None] = None

    @classmethod
    def fits(cls, session: Session) -> bool:
        """Whether there is anything for the panel to do."""
        return True

    def build(self, gui: Any, client: Client) -> None:
        """Add handles to `gui`, a viser GuiApi within the panel's tab."""

    def update(self, state: State) -> None:
        """Called four times a second, after `build`; what costs anything looks at `state.version` first."""

    def close(self) -> None:
        """The visitor has gone, or looks at another scene; handles are gone already."""
