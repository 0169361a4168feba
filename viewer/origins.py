"""Whose pages may steer: a page that somebody else wrote, open in the same browser, reaches this machine, too."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit


def may_connect(origin: str | None, host: str | None, served_on: str) -> bool:
    """Whether a websocket may be opened.

    Browsers say which page opens a websocket, and let any page open one to any address (RFC 6455, 10.2). Ours came from
    this machine, on whatever port a tunnel ends; where others may connect at all, from the host that it speaks
    to. A name that leads to this machine alone is not enough on a loopback address: anyone can own such a name.

    Args:
        origin: header of the request; None, as of programs that are no browsers, is let in.
        host: header of the request.
        served_on: the address listened on.
    """
    if origin is None:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    if page.scheme not in ("http", "https") or not page.hostname:
        return False
    return _is_loopback(page.hostname) or (not _is_loopback(served_on) and page.netloc == host)


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextmanager
def checked(served_on: str, refused: Callable[[str], None]) -> Iterator[None]:
    """Servers that are started in the `with` refuse pages of others, and tell `refused` whose.

    viser starts its server itself and has no way to say what websockets is to ask of a request, so the call is
    met on its way.
    """
    import websockets.asyncio.server as module

    serve = module.serve

    def guarded(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            origin, host = request.headers.get("Origin"), request.headers.get("Host")
            if request.headers.get("Upgrade") and not may_connect(origin, host, served_on):
                refused(origin)
                return connection.respond(HTTPStatus.FORBIDDEN, "This page may not use the viewer.\n")
            return process_request(connection, request)

        return serve(*args, process_request=process, **options)

    module.serve = guarded  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        module.serve = serve  # type: ignore[misc]
