"""The vq container: a scene as range-coded indices into its own codebooks. docs/vq-format.md has the bytes."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.codecs import heads
from splat.codecs.bounded import allowance
from splat.codecs.format import Decoded, Format, Metadata, by_scene, differences
from splat.codecs.quantize import nearest_before
from splat.codecs.vq import guides
from splat.codecs.vq import heads as vq_heads
from splat.codecs.vq.basis import PARTS as VIEWS
from splat.codecs.vq.basis import Basis, kept
from splat.codecs.vq.cells import LARGEST_DEPTH, at_depth, decode_cells, encode_mixed, pack, unpack
from splat.codecs.vq.coding import (
    decode_book,
    decode_labels,
    decode_levels,
    encode_book,
    encode_labels,
    encode_levels,
)
from splat.codecs.vq.quantizer import VqOptions, quantize
from splat.codecs.vq.scene import Quantized, widths
from splat.codecs.vq.turns import (
    LARGEST_SWING,
    LARGEST_TWIST,
    directions_from_parts,
    directions_to_parts,
    labels_of,
    numbers_of,
    turns_from_parts,
    turns_to_parts,
)
from splat.core import DataError, Gaussians
from splat.core.files import replacing
from splat.core.sh import coefficients

MAGIC = b"SPLATVQ"
# Both are written: what differs is how labels and directions are coded. The second takes 4 to 9% fewer bytes of a scene
# that was trained for the container, and several times as long.
QUICK, SMALL = VERSIONS = (3, 4)
# antialiased, degree, depth of the coded cells, number of Gaussians, origin, edge of the cube
_HEADER = struct.Struct("<BBBI3dd")
# Of the words of the scale: largest depth of the cells, and largest swing, twist and axis of the rotations.
_LEVELS = (LARGEST_DEPTH, LARGEST_SWING, LARGEST_TWIST, 2)
_KEPT = ("generator", "comments", "offset", "up_axis")


class _Reader:
    """Byte strings, each after its length."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def part(self) -> bytes:
        if self._at + 4 > len(self._data):
            raise ValueError("cut short")
        (length,) = struct.unpack_from("<I", self._data, self._at)
        end = self._at + 4 + length
        if end > len(self._data):
            raise ValueError("cut short")
        part = bytes(self._data[self._at + 4 : end])
        self._at = end
        return part

    def end(self) -> None:
        if any(self._data[self._at :]):
            raise ValueError(f"{len(self._data) - self._at} bytes follow the end")


def to_bytes(scene: Quantized, metadata: Metadata, version: int = SMALL) -> tuple[bytes, np.ndarray]:
    """The file of that version, and the order [N] in which the Gaussians are in it."""
    depth = scene.depths[scene.labels["scale"]].numpy() if len(scene) else np.zeros(0, np.int64)
    cells = scene.cells.numpy()
    coded, order, base = _cheapest(cells, depth)
    about = {key: metadata[key] for key in _KEPT if metadata.get(key) is not None}
    said = heads.said(metadata.get("heads"), scene.extras)
    if said:
        about["heads"] = [head.to_json() for head in said]
    header = _HEADER.pack(
        scene.antialiased, scene.degree, base, len(scene), *scene.origin.tolist(), scene.size
    )
    parts = [header, json.dumps(about, sort_keys=True, separators=(",", ":")).encode() if about else b""]
    basis = torch.cat([scene.basis.constant[None], scene.basis.synthesis])
    parts.append(basis.numpy().astype("<f4").tobytes())
    coarse = at_depth(cells, depth, base)[order]
    labels = {name: found[order] for name, found in scene.labels.items()}
    finest = scene.turns[labels["scale"]]
    direction, turn = numbers_of(labels["rotation"], finest)
    if version == QUICK:
        sizes = {name: len(book.words) + (name in VIEWS) for name, book in scene.books.items()}
        coded_labels = encode_labels(labels, sizes, nearest_before(coarse))
        coded_directions = directions_to_parts(direction, finest, coarse)
    else:
        beside = guides.Neighbours.of(coarse)
        coded_labels = guides.encode_labels(labels, scene.books, beside)
        coded_directions = [guides.encode_directions(direction, finest, labels, scene.books, beside)]
    for name, book in scene.books.items():
        parts += [encode_book(book), coded_labels[name]]
    levels = torch.cat([scene.depths[:, None], scene.turns], 1).T
    parts += [encode_levels(level, most) for level, most in zip(levels, _LEVELS, strict=True)]
    parts += coded_directions + turns_to_parts(turn, finest, coarse)
    parts.append(coded)
    extra = np.maximum(depth - base, 0)[order]
    low = cells[order] & ((1 << extra) - 1)[:, None]
    parts.append(pack(low.flatten(), np.repeat(extra, 3)))
    features = heads.features(said, scene.extras, len(scene))
    parts += vq_heads.to_parts(said, metadata.get("heads") or {}, features[torch.from_numpy(order)])
    body = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    # A reader takes no more memory than its file's size allows; scenes of equal Gaussians would be too small.
    missing = _memory(len(scene), scene.degree) - allowance(0)
    body += bytes(max(0, -(-missing // (allowance(1) - allowance(0))) - len(body)))
    return MAGIC + bytes([version]) + struct.pack("<I", zlib.crc32(body)) + body, order


def _memory(count: int, degree: int) -> int:
    """Bytes of the decoded scene."""
    return 4 * count * (11 + 3 * coefficients(degree))


def _cheapest(cells: np.ndarray, depth: np.ndarray) -> tuple[bytes, np.ndarray, int]:
    """The cells coded at the depth that takes the fewest bits, with the order and that depth."""
    if len(depth) == 0:
        return b"", np.zeros(0, np.int64), 1
    bases = sorted({int(np.quantile(depth, share, method="lower")) for share in (0, 0.01, 0.05, 0.2, 0.5)})
    tried = [(*encode_mixed(cells, depth, base), base) for base in bases]
    _, coded, order, base = min(tried, key=lambda one: one[0])
    return coded, order, base


def from_bytes(data: bytes) -> tuple[Quantized, Metadata]:
    """What `to_bytes` was given, in the order of the file; ValueError where the bytes are no such file."""
    head = len(MAGIC) + 1 + 4
    if data[: len(MAGIC)] != MAGIC or len(data) < head:
        raise ValueError("not a vq file")
    version = data[len(MAGIC)]
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise ValueError(f"version {version} of the format; this reader knows {known}")
    body = data[head:]
    if struct.unpack_from("<I", data, len(MAGIC) + 1)[0] != zlib.crc32(body):
        raise ValueError("the checksum does not fit")
    reader = _Reader(memoryview(body))
    header = reader.part()
    if len(header) != _HEADER.size:
        raise ValueError("the header has another length")
    antialiased, degree, base, count, x, y, z, size = _HEADER.unpack(header)
    if degree > 3 or not 1 <= base <= LARGEST_DEPTH or antialiased > 1:
        raise ValueError("the header has values out of range")
    if not all(map(math.isfinite, (x, y, z, size))) or not 0 < size < 1e30 or max(map(abs, (x, y, z))) > 1e30:
        raise ValueError("the cube of the centres is out of range")
    if _memory(count, degree) > allowance(len(body)):
        raise ValueError(f"{count} Gaussians do not fit into {len(body)} bytes")
    metadata = _about(reader.part())
    basis = _basis(reader.part(), degree)
    books, sizes, coded_labels = {}, {}, {}
    for name, width in widths(degree).items():
        books[name] = decode_book(reader.part(), width, count)
        coded_labels[name] = reader.part()
        sizes[name] = len(books[name].words) + (name in VIEWS)
        if count and not sizes[name]:
            raise ValueError(f"the codebook of {name} is empty")
    kinds = len(books["scale"].words)
    levels = torch.stack([decode_levels(reader.part(), most, kinds) for most in _LEVELS], 1)
    depths, turns = levels[:, 0], levels[:, 1:]
    if bool((depths < 1).any()):
        raise ValueError("the depths of the cells are out of range")
    coded_directions = [reader.part() for _ in range(LARGEST_SWING + 1 if version == QUICK else 1)]
    coded_turns = [reader.part() for _ in range(LARGEST_TWIST + 1)]
    coded, rest = reader.part(), reader.part()
    cells = decode_cells(coded, base, count) if count else np.zeros((0, 3), np.int64)
    if version == QUICK:
        labels = decode_labels(coded_labels, sizes, nearest_before(cells))
        finest = turns[labels["scale"]]
        direction = directions_from_parts(coded_directions, finest, cells)
    else:
        beside = guides.Neighbours.of(cells)
        labels = guides.decode_labels(coded_labels, books, beside)
        finest = turns[labels["scale"]]
        direction = guides.decode_directions(coded_directions[0], finest, labels, books, beside)
    labels["rotation"] = labels_of(direction, turns_from_parts(coded_turns, finest, cells), finest)
    extras: dict[str, Tensor] = {}
    if "heads" in metadata:
        said = metadata["heads"]
        if _memory(count, degree) + 8 * count * sum(head.width for head in said) > allowance(len(body)):
            raise ValueError(f"what the heads read of {count} Gaussians does not fit into {len(body)} bytes")
        metadata["heads"], features = vq_heads.from_parts(reader.part, said, count)
        extras = heads.split(said, features)
    reader.end()
    depth = depths[labels["scale"]].numpy()
    extra = np.maximum(depth - base, 0)
    low = unpack(rest, np.repeat(extra, 3)).reshape(-1, 3)
    cells = (cells >> np.maximum(base - depth, 0)[:, None] << extra[:, None]) | low
    origin = torch.tensor([x, y, z], dtype=torch.float64)
    scene = Quantized(
        origin, size, depths, turns, torch.from_numpy(cells), labels, books, basis, bool(antialiased), extras
    )
    return scene, metadata


def _about(data: bytes) -> Metadata:
    if not data:
        return {}
    about = json.loads(data)
    if not isinstance(about, dict):
        raise ValueError("the metadata are not a mapping")
    kept: Metadata = {}
    if isinstance(about.get("generator"), str):
        kept["generator"] = about["generator"]
    comments = about.get("comments", [])
    if isinstance(comments, list):
        kept["comments"] = [str(line) for line in comments]
    offset = about.get("offset")
    if offset is not None:
        if not isinstance(offset, list) or len(offset) != 3:
            raise ValueError("the offset is not three numbers")
        kept["offset"] = [float(value) for value in offset]
        if not all(map(math.isfinite, kept["offset"])):
            raise ValueError("the offset is not finite")
    if isinstance(about.get("up_axis"), str):
        kept["up_axis"] = about["up_axis"]
    if "heads" in about:
        kept["heads"] = heads.understood(about["heads"])
    return kept


def _basis(data: bytes, degree: int) -> Basis:
    rows, harmonics = 1 + kept(degree), coefficients(degree) - 1
    if len(data) != 4 * rows * harmonics:
        raise ValueError("the basis of the colours has another length")
    table = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).view(rows, harmonics)
    if not bool(torch.isfinite(table).all()) or bool((table.abs() > 1e6).any()):
        raise ValueError("the basis of the colours has values out of range")
    return Basis(table[0], torch.linalg.pinv(table[1:]).T.contiguous(), table[1:])


def read(path: Path) -> Decoded:
    data = path.read_bytes()
    try:
        scene, metadata = from_bytes(data)
    except ValueError as error:
        raise DataError(f"{path}: damaged or not a vq file ({error}); copy or download it again") from error
    return Decoded(scene.gaussians(), {"version": str(data[len(MAGIC)]), "comments": [], **metadata})


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: VqOptions) -> list[str]:
    learned = (metadata.get("codebooks") or {}).get("vq")
    quantized = replace(quantize(gaussians, options, learned), extras=gaussians.extras)
    # Codebooks that were trained are worth seconds; other scenes are read as quickly as they may be.
    data, _ = to_bytes(quantized, metadata, QUICK if learned is None else SMALL)
    with replacing(path) as file:
        file.write(data)
    return []


def max_error(gaussians: Gaussians, options: VqOptions) -> dict[str, float]:
    """That of the codebooks which `write` makes for the scene: bits alone bound nothing here."""
    return differences(gaussians, quantize(gaussians, options).gaussians())


def order(gaussians: Gaussians) -> torch.Tensor:
    return torch.from_numpy(to_bytes(quantize(gaussians, VqOptions()), {})[1])


def _sniff(path: Path, head: bytes) -> bool:
    return head.startswith(MAGIC)


FORMAT = Format(
    name=".vq",
    extensions=(".vq",),
    sniff=_sniff,
    read=read,
    write=write,
    options=VqOptions,
    max_error=max_error,
    order=by_scene(order),
    holds=frozenset({"antialiased", "offset", "up_axis", "heads"}),
    ladder=tuple({"words": 1 << bits} for bits in (14, 12, 10, 9, 8, 7)),
)
