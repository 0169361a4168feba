"""The formats; reading by what a file holds, writing by the end of its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from splat.codecs import columns, compressed_ply, gltf, html, ksplat, ply, sog, splat, spz, vq
from splat.codecs.format import HEAD, UP_AXES, Decoded, Format, Metadata, settle_infinities, suspicions
from splat.codecs.options import settle_options
from splat.core import DataError, Gaussians, UsageError
from splat.core.finite import check_finite
from splat.core.gaussians import PARAMETERS

# Asked in this order what a file holds: formats that only their names tell come last.
_FORMATS: tuple[Format, ...] = (
    compressed_ply.FORMAT,
    ply.FORMAT,
    sog.FORMAT,
    spz.FORMAT,
    gltf.FORMAT,
    vq.FORMAT,
    html.FORMAT,
    ksplat.FORMAT,
    splat.FORMAT,
)


def formats() -> tuple[Format, ...]:
    """All formats that can be read or written."""
    return _FORMATS


def extensions() -> tuple[str, ...]:
    """The ends of file names that can be written."""
    return tuple(extension for form in _FORMATS if form.write is not None for extension in form.extensions)


def format_to_write(path: str | Path) -> Format:
    """The format that `encode` writes for this name.

    Raises:
        UsageError: there is none.
    """
    path = Path(path)
    form = _by_name(path, [form for form in _FORMATS if form.write is not None])
    if form is None:
        what = path.suffix or "a name without extension"
        raise UsageError(f"{path}: no format to write for {what}; choose from {', '.join(extensions())}")
    return form


def decode(path: str | Path) -> tuple[Gaussians, Metadata]:
    """Reads a scene: float32 on the CPU, contiguous, every value finite.

    Returns:
        The Gaussians and the metadata: `format`, `version`, `comments` (lines), `notes` (one line for each
        thing ignored or replaced) and whatever else of format.Metadata the file states.

    Raises:
        DataError: the file is missing, of no known format, damaged, or has NaN or infinite values.
    """
    path = Path(path)
    form, found = read(path)
    if not columns.all_finite(found.gaussians):
        check_finite(found.gaussians, str(path))
    # The fused step of training works in place, and takes tensors as they lie.
    gaussians = found.gaussians.map(torch.Tensor.contiguous)
    return gaussians, {"format": form.name, **found.metadata, "notes": found.notes}


def losses(gaussians: Gaussians, path: str | Path, metadata: Metadata | None = None) -> list[str]:
    """What a file of this name will lack of the scene, a line each: for the user, before it is written.

    Raises:
        UsageError: no format that can be written has the path's extension.
    """
    return format_to_write(path).losses(gaussians, metadata or {})


def encode(
    gaussians: Gaussians,
    path: str | Path,
    metadata: Metadata | None = None,
    options: Mapping[str, Any] | Any = None,
) -> list[str]:
    """Writes a scene; `path` is either the old file or the whole new one, whatever happens.

    Equal scenes, metadata and options give equal bytes.

    Args:
        metadata: see format.Metadata; other entries are ignored. What `decode` gave may be passed on.
        options: write options of the format, by name (or an instance of its `options`).

    Returns:
        Notes, one line each: what the format does not hold (`losses`), what was changed to fit it, and what
        looks like a mistake.

    Raises:
        UsageError: no format that can be written has the path's extension, or an option does not fit.
        DataError: a value is NaN or infinite (the message names the Gaussian), the format's range does not
            fit the scene, or the disk refuses.
    """
    path, metadata = Path(path), metadata or {}
    form = format_to_write(path)
    assert form.write is not None
    settled = settle_options(form, options)
    gaussians.validate()
    gaussians = gaussians.detach()
    tensors = {name: getattr(gaussians, name).to("cpu", torch.float32).contiguous() for name in PARAMETERS}
    narrow = replace(gaussians, **tensors)
    if gaussians.extras or not columns.all_finite(narrow):
        check_finite(gaussians, f"{path} was not written")
        check_finite(narrow, f"{path} was not written: in float32")
    if metadata.get("up_axis") not in (None, *UP_AXES):
        raise UsageError(f"up_axis: expected one of {', '.join(UP_AXES)}, got {metadata['up_axis']!r}")
    lost = form.losses(narrow, metadata)
    return lost + form.write(narrow, path, metadata, settled) + suspicions(narrow)


def read(path: Path) -> tuple[Format, Decoded]:
    """Reads a file without refusing NaN; DataError otherwise as `decode`."""
    try:
        form, head = _sniffed(path)
        if form is None:
            raise _unknown(path, head)
        found = form.read(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    found.notes += settle_infinities(found.gaussians)
    return form, found


def sniff(path: str | Path) -> Format | None:
    """The format of what lies at `path`, a file or a folder, by its first bytes; None for no known one."""
    try:
        return _sniffed(Path(path))[0]
    except OSError:
        return None


def _sniffed(path: Path) -> tuple[Format | None, bytes]:
    head = b""
    if not path.is_dir():
        with open(path, "rb") as file:
            head = file.read(HEAD)
    return next((form for form in _FORMATS if form.sniff(path, head)), None), head


def _unknown(path: Path, head: bytes) -> DataError:
    if path.is_dir():
        return DataError(f"{path}: a folder that holds no scene that can be read")
    if not head:
        return DataError(f"{path}: empty; copy or download it again")
    named = _by_name(path, list(_FORMATS))
    if named is not None:
        return DataError(f"{path}: not a {named.name} file (it begins with {head[:8]!r})")
    known = ", ".join(form.extensions[0] for form in _FORMATS)
    return DataError(f"{path}: not a scene that can be read; the formats are {known}")


def _by_name(path: Path, among: list[Format]) -> Format | None:
    """The format with the longest extension that the path's name ends with."""
    name = path.name.lower()
    fitting = [
        (len(extension), -place, form)
        for place, form in enumerate(among)
        for extension in form.extensions
        if name.endswith(extension)
    ]
    return max(fitting, key=lambda entry: entry[:2])[2] if fitting else None
