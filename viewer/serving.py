"""Where the viewer is served: the address, the port, what is said of them."""

from __future__ import annotations

import contextlib
import getpass
import io
import logging
import math
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from splat.core import DeviceError, UsageError
from splat.viewer import origins

_TOLD = 20  # origins that the log names
_PORTS = 50  # tried from the first one on
_QUIET_SECONDS = 10.0  # before the same kind of failure is told again


@dataclass(frozen=True)
class Address:
    """Where to serve. A port that is taken makes way for the next free one."""

    host: str = "127.0.0.1"
    port: int = 8080


def import_viser() -> Any:
    """The module viser; UsageError where it is not installed."""
    try:
        import viser
        import viser.uplot
    except ImportError as error:
        raise UsageError(f"the viewer needs viser ({error}): pip install viser") from error
    return viser


def free_port(address: Address) -> int:
    """The first port from `address.port` on that can be listened on; DeviceError where there is none."""
    if not 0 < address.port < 65536:
        raise UsageError(f"--viewer-port {address.port}: a port is a number from 1 to 65535")
    reason = ""
    for port in range(address.port, min(address.port + _PORTS, 65536)):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((address.host, port))
                return port
            except (OSError, UnicodeError) as error:
                reason = getattr(error, "strerror", None) or str(error)
    raise DeviceError(
        f"{address.host}:{address.port}: the viewer cannot listen there ({reason}); choose another "
        "--viewer-host or --viewer-port"
    )


def serve(viser: Any, address: Address, label: str, log: Callable[[str], None]) -> tuple[Any, int]:
    """viser's server on the first free port, and the port; viser itself says nothing on the terminal."""
    port = free_port(address)
    told: set[str] = set()

    def refused(origin: str) -> None:
        if len(told) < _TOLD and origin not in told:
            told.add(origin)
            log(f"viewer: a page of {origin:.100} tried to connect and was refused")

    with contextlib.redirect_stdout(io.StringIO()), origins.checked(address.host, refused):
        server = viser.ViserServer(host=address.host, port=port, label=label, verbose=False)
    return server, server.get_port()


def hear_failures(server: Any, log: Callable[[str], None]) -> Callable[[], None]:
    """Failures of connections, such as garbage on the socket, become lines of the log; returns what ends that."""
    # Handles of browsers that have just left are written to now and then; that is no news to anybody, nor is
    # what is wrong with a message that no page would send.
    warnings.filterwarnings("ignore", message=r"Queued a .* on a closed connection")
    warnings.filterwarnings("ignore", message=r"\[viser\] .* does not match annotation")
    told: dict[str, float] = {}

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            kind, now = type(cause).__name__, time.monotonic()
            # Somebody may send garbage all day, and the cause may quote all of it.
            if now - told.get(kind, -math.inf) >= _QUIET_SECONDS:
                told[kind] = now
                log(f"viewer: {record.getMessage()}" + (f": {cause!r:.120}" if cause else ""))

    handler = Lines(logging.WARNING)
    logger = logging.getLogger("websockets.server")
    logger.addHandler(handler)
    logger.propagate = False

    def failed(loop: Any, context: dict[str, Any]) -> None:
        log(f"viewer: {context.get('message')}: {context.get('exception')!r:.120}")

    loop = server.get_event_loop()
    loop.call_soon_threadsafe(loop.set_exception_handler, failed)
    return lambda: logger.removeHandler(handler)


def announcement(address: Address, port: int) -> list[str]:
    """What the user is told: the address, how to come from afar, who else can."""
    everywhere = address.host in ("0.0.0.0", "::", "")
    name = "localhost" if everywhere else address.host
    lines = [f"viewer: http://{name}:{port}"]
    if port != address.port:
        lines.append(f"viewer: port {address.port} is taken, so it is {port}")
    if everywhere:
        lines.append(
            f"viewer: warning: --viewer-host {address.host} lets anyone who can reach this machine watch and "
            "steer, and write files where the viewer writes them"
        )
    else:
        lines.append(
            f"viewer: from another machine: ssh -L {port}:{address.host}:{port} "
            f"{getpass.getuser()}@{socket.gethostname()}, then open http://localhost:{port}"
        )
    return lines
