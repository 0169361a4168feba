"""Pages of others, open in the same browser, must not steer."""

from __future__ import annotations

from importlib import metadata

import pytest
import showcase
from page import Page
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from splat.viewer.app import Viewer
from splat.viewer.origins import may_connect
from splat.viewer.serving import Address

HERE = "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("origin", "host", "served_on", "may"),
    [
        (None, HERE, "127.0.0.1", True),  # not a browser
        ("http://127.0.0.1:8080", HERE, "127.0.0.1", True),
        ("http://localhost:8080", "localhost:8080", "127.0.0.1", True),
        ("http://localhost:9000", "localhost:9000", "127.0.0.1", True),  # the near end of a tunnel
        ("https://localhost", "localhost:8080", "127.0.0.1", True),
        ("http://[::1]:8080", "[::1]:8080", "::1", True),
        ("http://viewer.localhost:8080", "viewer.localhost:8080", "127.0.0.1", True),
        ("http://evil.example", HERE, "127.0.0.1", False),
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1", False),  # a name that leads here
        ("http://localhost.evil.example", HERE, "127.0.0.1", False),
        ("http://127.0.0.1.evil.example:8080", HERE, "127.0.0.1", False),
        ("null", HERE, "127.0.0.1", False),  # a file, or a frame without an origin
        ("file://", HERE, "127.0.0.1", False),
        ("", HERE, "127.0.0.1", False),
        ("http://[::1", HERE, "127.0.0.1", False),
        ("http://10.0.0.5:8080", "10.0.0.5:8080", "0.0.0.0", True),
        ("http://machine:8080", "machine:8080", "0.0.0.0", True),
        ("http://machine:8081", "machine:8080", "0.0.0.0", False),
        ("http://evil.example", "machine:8080", "0.0.0.0", False),
    ],
)
def test_who_may_connect(origin: str | None, host: str, served_on: str, may: bool) -> None:
    assert may_connect(origin, host, served_on) is may


def test_a_page_of_others_is_refused_and_named_in_the_log(tmp_path) -> None:
    said: list[str] = []
    viewer = Viewer([showcase.session(tmp_path)], Address(port=8600), log=said.append)
    version = f"viser-v{metadata.version('viser')}"
    try:
        for _ in range(2):
            with pytest.raises(InvalidStatus, match="403"):
                connect(f"ws://127.0.0.1:{viewer.port}", subprotocols=[version], origin="http://evil.example")
        with connect(f"ws://127.0.0.1:{viewer.port}", subprotocols=[version], origin="http://localhost:1234"):
            pass
        with Page(viewer.port) as page:
            page.wait(lambda: page.images)
    finally:
        viewer.stop()
    named = [line for line in said if "evil" in line]
    assert named == ["viewer: a page of http://evil.example tried to connect and was refused"]


def test_the_check_leaves_websockets_as_it_was(tmp_path) -> None:
    import websockets.asyncio.server as module

    before = module.serve
    Viewer([showcase.session(tmp_path)], Address(port=8600)).stop()
    assert module.serve is before
