"""What the bytes of a scene file are spent on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splat.codecs.format import Format


def parts(form: Format, path: Path) -> dict[str, int]:
    """Name of a part -> its bytes; they sum up to the scene's size on disk.

    Formats tell their own parts. Of others the members of an archive are told, the files of a folder, or those
    that a JSON file names, directly or through another one; else the file as a whole.
    """
    if form.parts is not None:
        return form.parts(path)
    if path.is_dir():
        return {
            str(file.relative_to(path)): file.stat().st_size
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
    size = path.stat().st_size
    if path.suffix == ".json":
        named = sorted({path, *_named(path, path.parent)})
        return {str(file.relative_to(path.parent)): file.stat().st_size for file in named}
    if not zipfile.is_zipfile(path):
        return {"all": size}
    with zipfile.ZipFile(path) as archive:
        found = {entry.filename: entry.compress_size for entry in archive.infolist() if not entry.is_dir()}
    return {**found, "archive": size - sum(found.values())}


def _named(path: Path, folder: Path) -> Iterator[Path]:
    """The files below `folder` that a JSON file names."""
    for text in _strings(json.loads(path.read_text(encoding="utf-8"))):
        file = path.parent / text
        if file.is_file() and file != path and file.resolve().is_relative_to(folder.resolve()):
            yield file
            if file.suffix == ".json" and file.parent != path.parent:
                yield from _named(file, folder)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
