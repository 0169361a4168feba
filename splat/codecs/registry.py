"""The formats, and reading and writing by extension or by the file's first bytes."""

from __future__ import annotations

from pathlib import Path

from splat.codecs import ply, splat
from splat.codecs.format import Decoded, Format, Metadata, settle_infinities, suspicions
from splat.core import DataError, Gaussians, UsageError
from splat.core.checks import check_finite

_FORMATS: tuple[Format, ...] = (ply.FORMAT, splat.FORMAT)


def formats() -> tuple[Format, ...]:
    """All formats that can be read or written."""
    return _FORMATS


def extensions() -> tuple[str, ...]:
    """The extensions of the formats that can be written."""
    return tuple(extension for form in _FORMATS if form.write is not None for extension in form.extensions)


def decode(path: str | Path) -> tuple[Gaussians, Metadata]:
    """Reads a scene: float32 on the CPU, every value finite.

    Returns:
        The Gaussians and the metadata: `format`, `version`, `comments` (lines), `notes` (one line for each
        thing ignored or replaced) and, where the file states one, `offset` ([x, y, z] floats to add to the
        centres for the world frame).

    Raises:
        DataError: the file is missing, of no known format, damaged, or has NaN or infinite values.
    """
    path = Path(path)
    form, found = read(path)
    check_finite(found.gaussians, str(path))
    return found.gaussians, {"format": form.name, **found.metadata, "notes": found.notes}


def encode(gaussians: Gaussians, path: str | Path, metadata: Metadata | None = None) -> list[str]:
    """Writes a scene; `path` is either the old file or the whole new one, whatever happens.

    Args:
        metadata: `generator` (str), `comments` (lines) and `offset` ([x, y, z] floats, see
            core.world.place), each optional; other entries are ignored. What `decode` gave may be passed on.

    Returns:
        Notes, one line each: what the format does not hold, and what looks like a mistake.

    Raises:
        UsageError: no format that can be written has the path's extension.
        DataError: a value is NaN or infinite (the message names the Gaussian), or the disk refuses.
    """
    path = Path(path)
    form = next((form for form in _FORMATS if form.write is not None and _has_extension(path, form)), None)
    if form is None or form.write is None:
        what = path.suffix or "a name without extension"
        raise UsageError(f"{path}: no format to write for {what}; choose from {', '.join(extensions())}")
    gaussians.validate()
    check_finite(gaussians, f"{path} was not written")
    return form.write(gaussians.detach(), path, metadata or {}) + suspicions(gaussians.detach())


def read(path: Path) -> tuple[Format, Decoded]:
    """Reads a file without refusing NaN; DataError otherwise as `decode`."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    form = next((form for form in _FORMATS if form.magic and head.startswith(form.magic)), None)
    if form is None:
        form = next((form for form in _FORMATS if form.magic is None and _has_extension(path, form)), None)
    if form is None:
        by_name = next((form for form in _FORMATS if _has_extension(path, form)), None)
        if by_name is not None:
            raise DataError(f"{path}: not a {by_name.name} file (it begins with {head[:8]!r})")
        known = ", ".join(form.extensions[0] for form in _FORMATS)
        raise DataError(f"{path}: not a scene that can be read; the formats are {known}")
    try:
        found = form.read(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    found.gaussians, replaced = settle_infinities(found.gaussians)
    found.notes += replaced
    return form, found


def _has_extension(path: Path, form: Format) -> bool:
    return path.name.lower().endswith(form.extensions)
