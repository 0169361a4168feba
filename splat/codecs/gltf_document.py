"""Documents of glTF 2.0: their JSON, buffers, accessors and nodes, as far as Gaussians need them.

Everything in a document may be missing or of the wrong kind; whatever is, is a DataError.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from splat.codecs import columns
from splat.codecs.bounded import allowance, read_member, require
from splat.core import DataError
from splat.core.rotations import quat_to_matrix
from splat.core.transforms import Similarity

_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_DEEPEST = 64
_LARGEST_INDEX = 1 << 40


@dataclass(frozen=True)
class Chunk:
    """A part of an open file, of `size` bytes from byte `start` on."""

    file: BinaryIO
    start: int
    size: int


@dataclass
class Values:
    """Where the values of an accessor lie: `count` rows, `stride` bytes apart, from byte `start` of `buffer`."""

    buffer: memoryview | Chunk
    start: int
    count: int
    stride: int
    dtype: np.dtype


@dataclass
class Document:
    """A glTF document.

    Attributes:
        path: the file, to begin messages with.
        root: the JSON.
        binary: the second chunk of a .glb, or None.
    """

    path: Path
    root: dict[str, Any]
    binary: Chunk | None
    _buffers: dict[int, memoryview | Chunk] = field(default_factory=dict)
    _left: int = 0

    def __post_init__(self) -> None:
        self._left = allowance(self.path.stat().st_size)

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """root[kind][index], a JSON object."""
        items = self.root.get(kind)
        if not isinstance(items, list) or not isinstance(index, int) or not 0 <= index < len(items):
            raise DataError(f"{self.path}: damaged: it has no {kind} {str(index)[:40]}")
        if not isinstance(items[index], dict):
            raise DataError(f"{self.path}: damaged: {kind} {index} is no object")
        return items[index]

    def number(self, item: dict[str, Any], name: str, default: int | None = None) -> int:
        """A count or an offset."""
        value = item.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST_INDEX:
            raise DataError(f"{self.path}: damaged: {name} is {str(value)[:40]}")
        return value

    def accessor(self, index: Any, width: int) -> np.ndarray:
        """[count, width] float32 values of the accessor, which may be the file's own, not to be written to; whole
        numbers are taken as shares of the largest."""
        values = self._values(index, width)
        buffer, start, dtype = values.buffer, values.start, values.dtype
        if isinstance(buffer, Chunk):
            size = values.stride * max(0, values.count - 1) + width * dtype.itemsize * bool(values.count)
            data, start = columns.read_bytes(buffer.file, buffer.start + start, size).data, 0
        else:
            data = buffer
        start = start if values.count else 0
        found: np.ndarray = np.ndarray(
            (values.count, width), dtype, data, start, (values.stride, dtype.itemsize)
        )
        if dtype.kind != "f":
            found = np.maximum(found / np.iinfo(dtype).max, -1)
        found = found.astype(np.float32, copy=False)
        return found if found.flags.aligned else found.copy()

    def triples(self, named: Mapping[str, Any], signs: list[float], count: int) -> Tensor:
        """[count, K, 3] float32: the values of K accessors, by the names of what they are, each times its sign."""
        every = {name: self._values(index, 3) for name, index in named.items()}
        for name, values in every.items():
            self.same_length(name, values.count, count)
        starts = [
            values.buffer.start + values.start
            for values in every.values()
            if isinstance(values.buffer, Chunk) and values.dtype.kind == "f" and values.stride == 12
        ]
        if self.binary is not None and len(starts) == len(every):
            return columns.read_interleaved(self.binary.file, starts, signs, count)
        return columns.interleave([self.accessor(index, 3) for index in named.values()], signs)

    def same_length(self, name: str, found: int, count: int) -> None:
        """DataError unless `name` has a value for each of `count` Gaussians."""
        if found != count:
            raise DataError(f"{self.path}: damaged: {found} values of {name}, there are {count} Gaussians")

    def _values(self, index: Any, width: int) -> Values:
        item = self.item("accessors", index)
        kind = _TYPES.get(self.number(item, "componentType"))
        if kind is None or _WIDTHS.get(str(item.get("type"))) != width:
            what = f"type {str(item.get('type'))[:20]} of components {item['componentType']}"
            raise DataError(f"{self.path}: damaged: accessor {index} has the {what}")
        if "sparse" in item or "bufferView" not in item:
            raise DataError(f"{self.path}: accessor {index} is sparse, which cannot be read")
        dtype, count = np.dtype(kind), self.number(item, "count")
        view = self.item("bufferViews", item["bufferView"])
        if view.get("extensions"):
            raise DataError(
                f"{self.path}: compressed buffers cannot be read: {', '.join(view['extensions'])[:80]}"
            )
        buffer = self._buffer(view.get("buffer"))
        held = buffer.size if isinstance(buffer, Chunk) else len(buffer)
        begin, length = self.number(view, "byteOffset", 0), self.number(view, "byteLength")
        require(self.path, f"buffer view {item['bufferView']}", begin + length, held)
        start, stride = self.number(item, "byteOffset", 0), self.number(view, "byteStride", 0)
        row = width * dtype.itemsize
        stride = stride or row
        if stride < row:
            raise DataError(f"{self.path}: damaged: rows of {stride} bytes hold {width} components of {kind}")
        if count:
            require(self.path, f"accessor {index}", start + (count - 1) * stride + row, length)
        self._left -= 4 * count * width + (1 << 13)  # each costs time besides
        if self._left < 0:
            raise DataError(f"{self.path}: damaged: the same data stand for too many Gaussians")
        return Values(buffer, begin + start, count, stride, dtype)

    def _buffer(self, index: Any) -> memoryview | Chunk:
        if index not in self._buffers:
            item = self.item("buffers", index)
            uri = item.get("uri")
            data: memoryview | Chunk
            if uri is None and index == 0 and self.binary is not None:
                data = self.binary
            elif isinstance(uri, str) and uri.startswith("data:"):
                try:
                    data = memoryview(base64.b64decode(uri.partition(",")[2], validate=True))
                except (binascii.Error, ValueError):
                    raise DataError(f"{self.path}: damaged: buffer {index} is no base64") from None
            elif isinstance(uri, str):
                data = memoryview(read_member(self.path, self.path.parent, unquote(uri)))
            else:
                raise DataError(f"{self.path}: damaged: buffer {index} has no data")
            self._buffers[index] = data
        return self._buffers[index]

    def primitives(self) -> Iterator[tuple[dict[str, Any], Similarity | None]]:
        """Every primitive that the scene shows, and where its nodes put it; None for where it is."""
        scenes = self.root.get("scenes")
        if isinstance(scenes, list) and scenes:
            roots = self.item("scenes", self.root.get("scene", 0)).get("nodes", [])
            for index in roots if isinstance(roots, list) else []:
                yield from self._below(index, None, 0)
            return
        meshes = self.root.get("meshes")
        for index in range(len(meshes) if isinstance(meshes, list) else 0):
            yield from ((primitive, None) for primitive in self._of_mesh(index))

    def _of_mesh(self, index: Any) -> list[dict[str, Any]]:
        found = self.item("meshes", index).get("primitives")
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def _below(
        self, index: Any, above: Similarity | None, depth: int
    ) -> Iterator[tuple[dict[str, Any], Similarity | None]]:
        if depth > _DEEPEST:
            raise DataError(f"{self.path}: damaged: nodes more than {_DEEPEST} deep, or in a circle")
        node = self.item("nodes", index)
        self._left -= 1 << 10  # a node that is many nodes' child may not multiply without end
        if self._left < 0:
            raise DataError(f"{self.path}: damaged: it has too many nodes for its size")
        own = self._placement(node, index)
        placed = own if above is None else above if own is None else above.after(own)
        if "mesh" in node:
            for primitive in self._of_mesh(node["mesh"]):
                yield primitive, placed
        children = node.get("children", [])
        for child in children if isinstance(children, list) else []:
            yield from self._below(child, placed, depth + 1)

    def _placement(self, node: dict[str, Any], index: Any) -> Similarity | None:
        """The node's transform; None for none. DataError where it is no similarity."""

        def numbers(name: str, default: list[float]) -> np.ndarray:
            value = node.get(name, default)
            good = isinstance(value, list) and len(value) == len(default)
            if not good or not all(isinstance(v, (int, float)) and abs(v) < 1e30 for v in value):
                raise DataError(f"{self.path}: damaged: {name} of node {index} is {str(value)[:60]}")
            return np.array(value, np.float64)

        matrix = numbers("matrix", np.eye(4).flatten().tolist()).reshape(4, 4).T
        if "matrix" not in node:
            quat = torch.from_numpy(numbers("rotation", [0, 0, 0, 1])[[3, 0, 1, 2]])
            matrix = matrix.copy()
            matrix[:3, :3] = quat_to_matrix(quat).numpy() * numbers("scale", [1, 1, 1])
            matrix[:3, 3] = numbers("translation", [0, 0, 0])
        if np.array_equal(matrix, np.eye(4)):
            return None
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        try:
            if not 1e-30 < scale < 1e30:
                raise ValueError("it mirrors or flattens")
            return Similarity(
                torch.from_numpy(matrix[:3, :3] / scale), torch.from_numpy(matrix[:3, 3]), scale
            )
        except ValueError:
            raise DataError(
                f"{self.path}: node {index} mirrors or stretches its Gaussians, which cannot be read"
            ) from None


@contextmanager
def open_document(path: Path) -> Iterator[Document]:
    """The document of a .glb, whose values are read as they are asked for, or of a .gltf."""
    with open(path, "rb") as file:
        text, binary = _chunks(path, file)
        try:
            root = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: damaged: its JSON cannot be read ({str(error)[:80]})") from None
        if not isinstance(root, dict):
            raise DataError(f"{path}: damaged: its JSON is no object")
        yield Document(path, root, binary)


def _chunks(path: Path, file: BinaryIO) -> tuple[bytes, Chunk | None]:
    """The JSON of a document, and where the second chunk of a .glb lies."""
    held = os.fstat(file.fileno()).st_size
    head = file.read(20)
    if not head.startswith(b"glTF"):
        return head + file.read(), None
    require(path, "the header", 20, held)
    _, version, total, length, kind = struct.unpack("<4sIIII", head)
    if version != 2 or kind != 0x4E4F534A:
        raise DataError(f"{path}: damaged, or glTF of version {version}; 2 can be read")
    require(path, "the chunks", max(total, 20 + length), held)
    text = file.read(length)
    at = 20 + length
    if at + 8 > held:
        return text, None
    size, kind = struct.unpack("<II", file.read(8))
    require(path, "the binary chunk", at + 8 + size, held)
    return text, Chunk(file, at + 8, size) if kind == 0x004E4942 else None
