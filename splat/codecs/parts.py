"""What the bytes of a scene file are spent on."""

from __future__ import annotations

import zipfile
from pathlib import Path

from splat.codecs.format import Format


def parts(form: Format, path: Path) -> dict[str, int]:
    """Name of a part -> its bytes; they sum up to the file's size.

    Formats tell their own parts; of others an archive's members are told, and else the file as a whole.
    For a folder, or a file such as meta.json that names others, the format's own account is the only one that
    knows which files belong to it.
    """
    if form.parts is not None:
        return form.parts(path)
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return {"all": size}
    with zipfile.ZipFile(path) as archive:
        found = {entry.filename: entry.compress_size for entry in archive.infolist() if not entry.is_dir()}
    return {**found, "archive": size - sum(found.values())}
