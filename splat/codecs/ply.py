"""The .ply of the 3DGS authors: raw parameters as float32, one row a Gaussian.

Rows are x y z, normals (unused, zero), f_dc (3), f_rest (channel-major: all of red, then green, then blue),
opacity (logit), scale (3, logarithms), rot (4, wxyz). Files are read by the names in their header, so that
any order, missing normals, other types and further properties do no harm.

A scene's heads go beside that, where other readers pass over them: a comment that begins with `splat_heads`
says in JSON what they are, the values that they read are further properties feature_0, feature_1, ... of the
Gaussians, and the weights of each, float32, end the file. No element declares them: gaussforge and gsply
refuse files with a second element, and pass over bytes that follow the first.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch

from splat.codecs import columns, heads, ply_header
from splat.codecs.format import Decoded, Format, Metadata
from splat.codecs.ply_header import Element, Header
from splat.core import DataError, Gaussians, sh
from splat.core.files import replacing
from splat.core.heads import SavedHead

_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COLOR = ("f_dc_0", "f_dc_1", "f_dc_2")
_REQUIRED = (*_POSITION, *_COLOR, "opacity", *_SCALE, *_ROTATION)

# Rows that are converted at a time: bounds the memory beyond the scene's own.
_ROWS = 1 << 13


@dataclass(frozen=True)
class PlyOptions:
    """The plain .ply."""

    normals: bool = True
    """With the three unused normals, which the authors' own reader wants (12 bytes a Gaussian)."""


def read(path: Path) -> Decoded:
    with open(path, "rb") as file:
        header = ply_header.read_header(path, file)
        vertex, start = _find_vertex(path, header)
        rest = _rest_names(path, vertex.names)
        degree = min(sh.MAX_DEGREE, math.isqrt(len(rest) // 3 + 1) - 1)
        size = os.fstat(file.fileno()).st_size
        said, notes = _heads_of(path, header, vertex, size)
        if start + vertex.count * vertex.row_bytes > size:
            held = max(0, size - start) // vertex.row_bytes
            raise DataError(
                f"{path}: cut short: the header declares {vertex.count} Gaussians of {vertex.row_bytes} bytes, "
                f"the file has {held}; copy or download it again"
            )
        inputs = _feature_names(sum(head.width for head in said))
        gaussians, features = _read_rows(
            file, start, header.order, vertex, _harmonic_names(rest, degree), inputs
        )
        end = start + vertex.count * vertex.row_bytes
        weights = _weights(path, header, file, said, size)

    gaussians.extras = heads.split(said, features)
    if len(rest) > 3 * (sh.coefficients(degree) - 1):
        stored = math.isqrt(len(rest) // 3 + 1) - 1
        notes.append(f"ignored the harmonics above degree {degree}: the file has degree {stored}")
    extra = [name for name in vertex.names if name not in {*_REQUIRED, *_NORMAL, *rest, *inputs}]
    if extra:
        notes.append(f"ignored properties: {', '.join(extra[:8])}{' ...' if len(extra) > 8 else ''}")
    others = [element.name for element in header.elements if element.name != "vertex" and element.count]
    if others:
        notes.append(f"ignored elements: {', '.join(others)}")
    elif not said and end < size:
        notes.append(f"ignored the {size - end} bytes that follow the {vertex.count} Gaussians of the header")
    meant = ply_header.meaning(header.comments)
    gaussians.antialiased = meant.pop("mode", None) == "mip"
    if weights:
        meant["heads"] = weights
    return Decoded(gaussians, {"version": "1.0", "comments": header.comments, **meant}, notes)


def _read_rows(
    file: BufferedReader, start: int, order: str, vertex: Element, harmonics: list[str], inputs: list[str]
) -> tuple[Gaussians, torch.Tensor]:
    """The Gaussians whose rows begin at byte `start`, and their properties `inputs`."""
    count = vertex.count
    targets = {
        name: (parts, columns.empty(count, len(parts)))
        for name, parts in (
            ("means", _POSITION),
            ("quats", _ROTATION),
            ("log_scales", _SCALE),
            ("logit_opacities", ("opacity",)),
            ("sh", harmonics),
            ("inputs", inputs),
        )
    }
    dtype = np.dtype([(name, order + kind) for name, kind in vertex.properties])
    wanted = [name for parts, _ in targets.values() for name in parts]
    if all(dtype[name] == np.dtype("<f4") for name in wanted):
        places = {name: offset for name, (_, offset, *_) in dtype.fields.items()}  # type: ignore[union-attr]
        columns.read_columns(
            file,
            start,
            dtype.itemsize,
            [([places[name] for name in parts], target) for parts, target in targets.values()],
        )
    else:
        _read_others(file, start, dtype, targets)
    found = {name: target for name, (_, target) in targets.items()}
    gaussians = Gaussians(
        found["means"],
        found["quats"],
        found["log_scales"],
        found["logit_opacities"][:, 0],
        found["sh"].view(count, len(harmonics) // 3, 3),
    )
    return gaussians, found["inputs"]


def _read_others(
    file: BufferedReader,
    start: int,
    dtype: np.dtype,
    targets: Mapping[str, tuple[Sequence[str], torch.Tensor]],
) -> None:
    """Rows of other types than little-endian float32, some at a time."""
    file.seek(start)
    count = len(targets["means"][1])
    buffer = np.empty(min(_ROWS, count), dtype)
    for begin in range(0, count, _ROWS):
        rows = buffer[: min(_ROWS, count - begin)]
        if file.readinto(rows.view(np.uint8).data) != rows.nbytes:
            raise OSError("the file became shorter while it was read")
        for parts, target in targets.values():
            # A double beyond float32's range becomes an infinity, which the check of the values reports.
            with np.errstate(over="ignore", invalid="ignore"):
                for column, name in enumerate(parts):
                    target[begin : begin + len(rows), column] = torch.from_numpy(
                        rows[name].astype(np.float32)
                    )


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: PlyOptions) -> list[str]:
    count, degree = len(gaussians), gaussians.sh_degree
    rest = [f"f_rest_{i}" for i in range(3 * (sh.coefficients(degree) - 1))]
    normals = _NORMAL if options.normals else ()
    said = heads.said(metadata.get("heads"), gaussians.extras)
    features = heads.features(said, gaussians.extras, count)
    inputs = _feature_names(features.shape[1])
    names = [*_POSITION, *normals, *_COLOR, *rest, "opacity", *_SCALE, *_ROTATION, *inputs]
    lines = ["ply", "format binary_little_endian 1.0", *ply_header.comment_lines(gaussians, metadata)]
    if said:
        about = json.dumps([head.to_json() for head in said], separators=(",", ":"))
        lines.append(f"comment {ply_header.HEADS} {about}")
    lines += [f"element vertex {count}", *(f"property float {name}" for name in names)]
    lines += ["end_header", ""]

    place = {name: 4 * column for column, name in enumerate(names)}
    with replacing(path) as file:
        file.write("\n".join(lines).encode("ascii", "replace"))
        columns.write_columns(
            file,
            4 * len(names),
            [
                ([place[name] for name in parts], values)
                for parts, values in (
                    (_POSITION, gaussians.means),
                    (_harmonic_names(tuple(rest), degree), gaussians.sh.flatten(1)),
                    (("opacity",), gaussians.logit_opacities[:, None]),
                    (_SCALE, gaussians.log_scales),
                    (_ROTATION, gaussians.quats),
                    (inputs, features),
                )
            ],
        )
        for head in said:
            file.write(metadata["heads"][head.name].weights.numpy().astype("<f4").tobytes())
    return []


def _feature_names(width: int) -> list[str]:
    """The properties of what heads read of a Gaussian."""
    return [f"feature_{i}" for i in range(width)]


def _heads_of(path: Path, header: Header, vertex: Element, size: int) -> tuple[list[heads.Said], list[str]]:
    """The heads that the file has, and notes on those that it does not have whole."""
    for comment in header.comments:
        word, _, about = comment.partition(" ")
        if word != ply_header.HEADS:
            continue
        try:
            found = heads.understood(json.loads(about))
        except ValueError as error:
            return [], [f"ignored the heads of the scene: {error}"]
        missing = set(_feature_names(sum(head.width for head in found))) - set(vertex.names)
        end = header.rows_end()
        if missing or end is None or end >= size:
            return [], ["ignored the heads of the scene: another program left out what belongs to them"]
        if end + 4 * sum(head.count for head in found) != size:
            raise DataError(f"{path}: cut short or damaged: the weights of its heads are not whole")
        return found, []
    return [], []


def _weights(
    path: Path, header: Header, file: BufferedReader, said: list[heads.Said], size: int
) -> dict[str, SavedHead]:
    """The heads with their weights, which end the file."""
    file.seek(size - 4 * sum(head.count for head in said))
    found: dict[str, SavedHead] = {}
    for head in said:
        stored = np.frombuffer(file.read(4 * head.count), f"{header.order}f4").astype(np.float32)
        try:
            found[head.name] = head.saved(torch.from_numpy(stored))
        except ValueError as error:
            raise DataError(f"{path}: damaged: {error}") from None
    return found


def max_error(gaussians: Gaussians, options: PlyOptions) -> dict[str, float]:
    """Zero: the parameters are stored as they are, in float32."""
    return dict.fromkeys(("means", "quats", "log_scales", "opacities", "sh0", "shN"), 0.0)


def _find_vertex(path: Path, header: Header) -> tuple[Element, int]:
    """The element that has the Gaussians, and where its rows begin."""
    found = header.find(path, "vertex")
    if found is None:
        raise DataError(f"{path}: the PLY header declares no vertex element, hence no Gaussians")
    vertex, start = found
    missing = [name for name in _REQUIRED if name not in vertex.names]
    if missing:
        kind = "a point cloud or mesh without Gaussians: " if "f_dc_0" not in vertex.names else ""
        raise DataError(f"{path}: {kind}the PLY header lacks the properties {', '.join(missing)}")
    if vertex.has_lists:
        raise DataError(f"{path}: the PLY header gives the Gaussians a list property")
    return vertex, start


def _rest_names(path: Path, names: list[str]) -> tuple[str, ...]:
    """f_rest_0 ... in order; DataError unless they make up whole bands."""
    count = sum(name.startswith("f_rest_") for name in names)
    expected = tuple(f"f_rest_{i}" for i in range(count))
    whole = count % 3 == 0 and math.isqrt(count // 3 + 1) ** 2 == count // 3 + 1
    if not whole or not set(expected) <= set(names):
        raise DataError(
            f"{path}: the PLY header has {count} f_rest properties; SH degrees 0, 1, 2, 3 ... have 0, 9, 24, 45 ..."
        )
    return expected


def _harmonic_names(rest: tuple[str, ...], degree: int) -> list[str]:
    """The properties of sh [K, 3] in its own order, up to `degree`, where `rest` goes channel by channel."""
    stored = len(rest) // 3
    inner = [rest[channel * stored + k] for k in range(sh.coefficients(degree) - 1) for channel in range(3)]
    return [*_COLOR, *inner]


def sniff(path: Path, head: bytes) -> bool:
    return head.startswith(b"ply")


FORMAT = Format(
    "PLY",
    (".ply",),
    sniff,
    read,
    write,
    options=PlyOptions,
    max_error=max_error,
    holds=frozenset({"antialiased", "offset", "up_axis", "heads"}),
    parts=ply_header.parts,
    ladder=({}, {"normals": False}),
)
