"""Files that the viewer makes: where they are put, and how they reach the browser."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from splat.core import DataError
from splat.link import Session
from splat.viewer.statistics import size

if TYPE_CHECKING:
    from splat.viewer.client import Client

LARGEST_DOWNLOAD = 500_000_000  # bytes; viser sends a file through the page's socket and keeps it in memory


def stem_of(session: Session) -> str:
    """A file name, without its end, for what is made of a session's scene."""
    return re.sub(r"[^\w.-]+", "-", session.name.rsplit(".", 1)[0]).strip("-.") or "scene"


def new_file(session: Session, kind: str, stem: str, extension: str) -> Path:
    """The first of STEM.EXT, STEM-2.EXT, ... that is not there yet, in the session's folder of that kind.

    Raises:
        DataError: the folder cannot be made.
    """
    folder = (session.folder or Path(tempfile.gettempdir()) / "splat") / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror or error}): check the folder and the disk's space"
        ) from error
    number = 1
    while True:
        name = f"{stem}{extension}" if number == 1 else f"{stem}-{number}{extension}"
        if not (folder / name).exists():
            return folder / name
        number += 1


def offer(client: Client, file: Path, notes: list[str] | None = None) -> None:
    """Send a file to the visitor's browser, and say where it lies on the server."""
    count = file.stat().st_size
    told = "\n".join([f"{size(count)}: {file}", *(notes or [])])
    if count > LARGEST_DOWNLOAD:
        client.notify("Written; too large to download", told, colour="yellow", seconds=20.0)
        return
    client.handle.send_file_download(file.name, file.read_bytes(), save_immediately=True)
    client.notify("Written, and sent to the browser", told, colour="green", seconds=12.0)
