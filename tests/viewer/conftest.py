"""A viewer on a small finished scene, and a page that is connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from page import Page
from showcase import session

from splat.link import Session
from splat.viewer.app import Viewer
from splat.viewer.panels import PANELS
from splat.viewer.serving import Address


class Shown:
    """A viewer with one visitor.

    Attributes:
        session, viewer, page: of the visit.
        client: the visitor, as the viewer knows him.
    """

    def __init__(self, shown: Session, *others: Session) -> None:
        self.session = shown
        self.viewer = Viewer([shown, *others], Address(port=18080))
        self.page = Page(self.viewer.port)
        self.page.wait(lambda: self.viewer.clients and self.page.images)
        self.client = next(iter(self.viewer.clients.values()))
        fitting = sum(kind.fits(shown) for kind in PANELS)
        self.page.wait(lambda: len(self.client.panels) == fitting)

    def panel(self, kind: type) -> Any:
        return next(panel for panel in self.client.panels if isinstance(panel, kind))

    @property
    def count(self) -> int:
        """Gaussians of the scene as it is now."""
        snapshot = self.session.slot.latest(timeout=0)[1]
        assert snapshot is not None
        return len(snapshot.gaussians)

    def close(self) -> None:
        self.page.close()
        self.viewer.stop()


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """show(session or nothing and others, or what to change of the usual one) -> Shown."""
    with ExitStack() as stack:

        def begin(shown: Session | None = None, *others: Session, **more: Any) -> Shown:
            visit = Shown(session(tmp_path, **more) if shown is None else shown, *others)
            stack.callback(visit.close)
            return visit

        yield begin
