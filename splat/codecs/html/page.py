"""Writes and reads the page: a template, its style and scripts, a header in JSON, the scene in base64."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from splat.codecs.bounded import Inflater
from splat.codecs.format import UP_AXES, Decoded, Format, Metadata, by_scene
from splat.codecs.html.pack import max_error, pack, packed_size, unpack
from splat.codecs.quantize.order import morton_order
from splat.core import DataError, Gaussians
from splat.core.files import replacing

VERSION = 1
_MARK = "<!-- A scene of 3D Gaussians, written by Splat"
# Bytes of compressed data in one element of the page: a multiple of 3, so that each decodes on its own.
_PIECE = 3 << 22
# A Gaussian's parameters in memory are at most 240 bytes; beyond this count a header is taken for damaged.
_MOST_GAUSSIANS = 1 << 28

# What a header carries of the metadata as it is.
_CARRIED = ("generator", "comments", "offset", "up_axis")

_HEADER = re.compile(rb'<script type="application/json" id="scene-header">(.*?)</script>', re.DOTALL)
_DATA = re.compile(rb'<script type="text/plain" class="scene-data">([A-Za-z0-9+/=\s]*)</script>')


@dataclass(frozen=True)
class Options:
    """What the page is called.

    Attributes:
        title: shown in the page and by the browser; by default the file's name.
    """

    title: str = ""


def sniff(path: Path, head: bytes) -> bool:
    return _MARK.encode() in head[:256]


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: Options) -> list[str]:
    data, peaks = pack(gaussians)
    compressed = gzip.compress(data, 6, mtime=0)
    header: dict[str, Any] = {
        "version": VERSION,
        "count": len(gaussians),
        "antialiased": gaussians.antialiased,
        "peaks": peaks,
        "view": metadata.get("view") or view_of(gaussians, metadata.get("up_axis") or "-y"),
        "background": [float(value) for value in metadata.get("background", (0.0, 0.0, 0.0))],
    }
    for key in _CARRIED:
        if metadata.get(key) is not None:
            header[key] = metadata[key]
    before, after = _page(options.title or path.stem, header)
    with replacing(path) as file:
        file.write(before)
        for begin in range(0, len(compressed), _PIECE):
            file.write(b'<script type="text/plain" class="scene-data">')
            file.write(base64.b64encode(compressed[begin : begin + _PIECE]))
            file.write(b"</script>\n")
        file.write(after)
    return []


def view_of(gaussians: Gaussians, up_axis: str = "-y") -> dict[str, Any]:
    """A first view of a scene of which no camera is known: from slightly above, most of it in sight.

    Returns:
        position, target, up: [3] in the scene's frame; fov: degrees across and down.
    """
    means = gaussians.means.detach().to("cpu", torch.float64)
    fov = math.radians(50)
    centre, radius = torch.zeros(3, dtype=torch.float64), 1.0
    if len(means):
        centre = means.median(0).values
        away = (means - centre).norm(dim=1)
        radius = float(away.kthvalue(max(1, round(0.8 * len(away)))).values) or 1.0
    axis = "xyz".index(up_axis[-1])
    up = torch.zeros(3, dtype=torch.float64)
    up[axis] = -1.0 if up_axis.startswith("-") else 1.0
    level = torch.roll(up.abs(), 1)  # with up along y, the view is along z
    position = centre + radius / math.sin(fov / 2) * (0.35 * up - level)
    return {
        "position": position.tolist(),
        "target": centre.tolist(),
        "up": up.tolist(),
        "fov": [math.degrees(fov)] * 2,
    }


def _page(title: str, header: dict[str, Any]) -> tuple[bytes, bytes]:
    """What stands before and after the data."""

    def asset(name: str) -> str:
        return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")

    parts = {
        "title": html.escape(title),
        "mark": f"{_MARK}; version {VERSION} -->",
        "style": asset("style.css"),
        # "<" inside a script element could end it.
        "header": json.dumps(header, allow_nan=False).replace("<", "\\u003c"),
        "worker": asset("worker.js"),
        "vertex": asset("splat.vert"),
        "fragment": asset("splat.frag"),
        "script": "\n".join(asset(name) for name in ("renderer.js", "controls.js", "main.js")),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts.get(match[1], match[0]), asset("page.html"))
    before, _, after = page.partition("{{data}}\n")
    return before.encode(), after.encode()


def read(path: Path) -> Decoded:
    """The scene of a page that `write` made."""
    page = path.read_bytes()
    header = _read_header(path, page)
    count, peaks = header["count"], header["peaks"]
    try:
        compressed = b"".join(base64.b64decode(piece, validate=True) for piece in _DATA.findall(page))
    except ValueError as error:
        raise DataError(f"{path}: damaged: the scene's data cannot be read ({error})") from None
    size = packed_size(count, len(peaks))
    inflater = Inflater(path, compressed)
    data = inflater.read(size)
    if len(data) != size or inflater.read(1):
        raise DataError(
            f"{path}: damaged: the data do not hold exactly the {count:,} Gaussians of the header"
        )
    metadata: Metadata = {"version": str(VERSION), "comments": []}
    metadata.update({key: header[key] for key in (*_CARRIED, "view", "background") if key in header})
    return Decoded(unpack(data, count, peaks, header["antialiased"]), metadata)


def _read_header(path: Path, page: bytes) -> dict[str, Any]:
    found = _HEADER.search(page)
    try:
        header = json.loads(found[1]) if found else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise DataError(f"{path}: the page's header is missing or damaged; export it again")
    if header.get("version") != VERSION:
        raise DataError(
            f"{path}: a page of version {header.get('version')!r}; this release reads version {VERSION}"
        )

    def refuse(key: str) -> None:
        raise DataError(f"{path}: the header's {key!r} is damaged ({header.get(key)!r:.60}); export it again")

    count, peaks, offset = header.get("count"), header.get("peaks"), header.get("offset")
    if type(count) is not int or not 0 <= count <= _MOST_GAUSSIANS:
        refuse("count")
    if not (_numbers(peaks) and len(peaks) <= 3 and min(peaks, default=0) >= 0):  # type: ignore[arg-type]
        refuse("peaks")
    if offset is not None and not (_numbers(offset) and len(offset) == 3):
        refuse("offset")
    if type(header.get("antialiased")) is not bool:
        refuse("antialiased")
    comments = header.get("comments", [])
    if not (isinstance(comments, list) and all(isinstance(line, str) for line in comments)):
        refuse("comments")
    if header.get("up_axis") not in (None, *UP_AXES):
        refuse("up_axis")
    return header


def _numbers(value: object) -> bool:
    """Whether it is a list of finite numbers of a size that can be computed with."""
    return isinstance(value, list) and all(type(v) in (int, float) and abs(v) < 1e30 for v in value)


FORMAT = Format(
    ".html",
    (".html",),
    sniff,
    read,
    write,
    Options,
    lambda gaussians, options: max_error(gaussians),
    by_scene(lambda gaussians: morton_order(gaussians.means)),
    holds=frozenset({"antialiased", "offset", "up_axis", "view", "background"}),
)
