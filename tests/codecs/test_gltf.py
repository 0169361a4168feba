"""glTF: nodes, other component types, several primitives, damage."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from roundtrip import scene

from splat.codecs import decode, differences, encode
from splat.core import DataError, Gaussians
from splat.core.transforms import Similarity, transform_gaussians

NAME = "KHR_gaussian_splatting"


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the JSON of a .gltf."""
    root = json.loads(path.read_text())
    change(root)
    path.write_text(json.dumps(root))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "scene.gltf"
    encode(scene(20, 2, 0), path)
    return path


def test_nodes_place_their_gaussians(written: Path) -> None:
    """A child 2 times as large, turned a quarter about glTF's y, moved; and the same by matrices."""
    plain = decode(written)[0]
    half = 0.5**0.5

    def place(root: dict[str, Any]) -> None:
        root["nodes"] = [
            {"children": [1], "translation": [1, 2, 3]},
            {"mesh": 0, "scale": [2, 2, 2], "rotation": [0, half, 0, half]},
        ]

    edited(written, place)
    found = decode(written)[0]
    # glTF's axes are ours with x and y reversed: its y is our -y, a turn about it the reverse.
    turn = torch.tensor([[0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=torch.float64)
    expected = transform_gaussians(plain, Similarity(turn, torch.tensor([-1.0, -2, 3]).double(), 2.0))
    errors = differences(expected, found)
    assert max(errors[name] for name in ("means", "log_scales", "sh0", "shN")) < 1e-5
    torch.testing.assert_close(found.covariances(), expected.covariances(), atol=1e-4, rtol=1e-3)


def test_primitives_of_several_degrees_and_an_outside_buffer(written: Path) -> None:
    root = json.loads(written.read_text())
    content = __import__("base64").b64decode(root["buffers"][0]["uri"].partition(",")[2])
    (written.parent / "the data.bin").write_bytes(content)
    root["buffers"][0]["uri"] = "the%20data.bin"
    first = root["meshes"][0]["primitives"][0]
    plain = {k: v for k, v in first["attributes"].items() if "SH_DEGREE" not in k or "DEGREE_0" in k}
    root["meshes"][0]["primitives"] = [first, {**first, "attributes": plain}, {"attributes": {}, "mode": 0}]
    written.write_text(json.dumps(root))
    found = decode(written)[0]
    assert len(found) == 40
    assert not found.sh[20:, 1:].any()
    assert torch.equal(found.sh[:20, 0], found.sh[20:, 0])


def _set(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Sets root[keys[0]][keys[1]]... to the last of `keys`."""

    def change(root: Any) -> None:
        for key in keys[:-2]:
            root = root[key]
        root[keys[-2]] = keys[-1]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("buffers", 0, "uri", "../../etc/passwd"), "names a file outside itself"),
        (_set("buffers", 0, "uri", "/etc/passwd"), "names a file outside itself"),
        (_set("buffers", 0, "uri", "data:;base64,###"), "is no base64"),
        (_set("accessors", 0, "count", 1 << 39), "accessor 0 need"),
        (_set("accessors", 0, "count", -1), "count is -1"),
        (_set("accessors", 0, "count", 19), "there are 19 Gaussians"),
        (_set("accessors", 0, "type", "VEC2"), "has the type VEC2"),
        (_set("accessors", 0, "bufferView", 99), "it has no bufferViews 99"),
        (_set("bufferViews", 0, "byteLength", 1 << 30), "buffer view 0 need"),
        (_set("bufferViews", 0, "byteStride", 1), "rows of 1 bytes"),
        (_set("nodes", 0, "children", [0]), "more than 64 deep, or in a circle"),
        (_set("nodes", 0, "scale", [1, 2, 1]), "mirrors or stretches"),
        (_set("nodes", 0, "scale", [-1, 1, 1]), "mirrors or stretches"),
        (_set("nodes", 0, "translation", "far"), "translation of node 0"),
        (_set("meshes", 0, "primitives", []), "a glTF file without Gaussians"),
        (_set("meshes", [1]), "meshes 0 is no object"),
        (
            _set("meshes", 0, "primitives", 0, "extensions", NAME, "kernel", "box"),
            "the kernel 'box' cannot be read",
        ),
        (_set("scenes", 0, "nodes", [0] * 3000), "the same data stand for too many Gaussians"),
    ],
)
def test_damage_is_refused(written: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    edited(written, change)
    with pytest.raises(DataError) as error:
        decode(written)
    assert message in str(error.value)
    assert str(error.value).startswith(str(written))


def test_a_damaged_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.glb"
    encode(scene(5, 0, 0), path)
    whole = path.read_bytes()
    for bad, message in (
        (whole[:12] + struct.pack("<I", 1 << 31) + whole[16:], "the chunks need"),
        (whole[:4] + struct.pack("<I", 1) + whole[8:], "glTF of version 1"),
        (whole[:20] + b"[" * 50 + whole[70:], "its JSON cannot be read"),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=message):
            decode(path)


def _read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def _write_glb(path: Path, root: dict[str, Any], content: bytes, pad: int = 0) -> None:
    root["buffers"][0]["byteLength"] = len(content)
    text = json.dumps(root).encode()
    text += b" " * (-len(text) % 4 + pad)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(content), len(text), 0x4E4F534A)
    path.write_bytes(head + text + struct.pack("<II", len(content), 0x004E4942) + content)


def test_values_of_a_container_lie_where_its_views_say(tmp_path: Path) -> None:
    """The values of all attributes row by row, as other writers interleave them, and at odd bytes of the file."""
    path = tmp_path / "scene.glb"
    encode(scene(3000, 3, 0), path)
    plain = decode(path)[0]
    root, content = _read_glb(path)
    _write_glb(path, root, content, pad=3)
    assert_equal(decode(path)[0], plain)

    views, accessors = root["bufferViews"], root["accessors"]
    columns = [
        np.frombuffer(content[view["byteOffset"] :][: view["byteLength"]], np.uint8).reshape(3000, -1)
        for view in views
    ]
    stride, at = sum(column.shape[1] for column in columns), 0
    for accessor, column in zip(accessors, columns, strict=True):
        accessor |= {"bufferView": 0, "byteOffset": at}
        at += column.shape[1]
    rows = np.concatenate(columns, 1).tobytes()
    root["bufferViews"] = [{"buffer": 0, "byteOffset": 1, "byteLength": len(rows), "byteStride": stride}]
    _write_glb(path, root, b"?" + rows)
    assert_equal(decode(path)[0], plain)

    accessors[-1]["count"] = 2999
    _write_glb(path, root, b"?" + rows)
    with pytest.raises(DataError, match=r"2999 values of .*SH_DEGREE_3_COEF_6, there are 3000 Gaussians"):
        decode(path)
    _write_glb(path, root, b"?" + rows[:-1])
    with pytest.raises(DataError, match="cut short or damaged"):
        decode(path)


def assert_equal(found: Gaussians, expected: Gaussians) -> None:
    for name, values in expected.named_tensors():
        assert torch.equal(getattr(found, name), values), name
