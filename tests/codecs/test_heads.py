"""Heads in files: read back as they were written, named where they are lost, refused where they are damaged."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import scenes
import torch
from scenes import headed

from splat import codecs
from splat.codecs.heads import understood
from splat.core import DataError, Gaussians
from splat.core.heads import SavedHead

HOLDING = [".ply", ".glb", ".gltf", ".vq"]
LOSING = [".compressed.ply", ".sog", ".spz", ".splat", ".ksplat", ".html"]


def scene(count: int = 40) -> Gaussians:
    return scenes.mixed(count).to(torch.float32)


def test_every_format_is_one_or_the_other() -> None:
    assert {*HOLDING, *LOSING} | {"meta.json"} == set(codecs.extensions())


@pytest.mark.parametrize("width", [0, 1, 3, 8])
@pytest.mark.parametrize("extension", HOLDING)
def test_heads_come_back(extension: str, width: int, tmp_path: Path) -> None:
    given, metadata = headed(scene(), width)
    path = tmp_path / f"scene{extension}"
    assert codecs.encode(given, path, metadata) == []
    found, about = codecs.decode(path)
    assert about["notes"] == []
    assert list(about["heads"]) == ["glare"]
    head, wanted = about["heads"]["glare"], metadata["heads"]["glare"]
    assert (head.options, head.features) == (wanted.options, wanted.features)
    assert set(found.extras) == set(given.extras)
    exact = extension != ".vq"
    # Half precision has 11 bits.
    torch.testing.assert_close(head.weights, wanted.weights, rtol=0 if exact else 2**-11, atol=0)
    if width:
        form = codecs.format_to_write(path)
        order = torch.arange(len(given)) if exact else form.order(given, metadata, form.options())
        values = given.extras["shine"][order]
        # 256 levels from the least to the largest, rounded to the nearest.
        step = (values.amax(0) - values.amin(0)) / 255
        bound = torch.zeros_like(step) if exact else step / 2 + 1e-6
        assert ((found.extras["shine"] - values).abs() <= bound).all()
    again = tmp_path / f"again{extension}"
    codecs.encode(given, again, metadata)
    assert again.read_bytes() == path.read_bytes()
    assert codecs.inspect(path)["heads"] == {"glare": {**wanted.options, "weights": 50}}


def test_a_head_goes_from_format_to_format(tmp_path: Path) -> None:
    given, metadata = headed(scene())
    codecs.encode(given, tmp_path / "a.ply", metadata)
    codecs.encode(*_of(tmp_path / "a.ply", tmp_path / "b.glb"))
    codecs.encode(*_of(tmp_path / "b.glb", tmp_path / "c.ply"))
    found, about = codecs.decode(tmp_path / "c.ply")
    assert torch.equal(found.extras["shine"], given.extras["shine"])
    assert torch.equal(about["heads"]["glare"].weights, metadata["heads"]["glare"].weights)


def _of(source: Path, target: Path):
    found, about = codecs.decode(source)
    return found, target, about


@pytest.mark.parametrize("extension", LOSING)
def test_what_cannot_hold_it_says_so(extension: str, tmp_path: Path) -> None:
    given, metadata = headed(scene())
    path = tmp_path / f"scene{extension}"
    assert any("does not hold the head glare" in note for note in codecs.encode(given, path, metadata))
    assert "heads" not in codecs.decode(path)[1]


@pytest.mark.parametrize("extension", HOLDING)
def test_scenes_without_a_head_are_written_as_ever(extension: str, tmp_path: Path) -> None:
    codecs.encode(scene(), tmp_path / f"a{extension}", {"heads": {}})
    codecs.encode(scene(), tmp_path / f"b{extension}")
    assert (tmp_path / f"a{extension}").read_bytes() == (tmp_path / f"b{extension}").read_bytes()
    assert codecs.inspect(tmp_path / f"a{extension}")["heads"] is None


def test_empty_scenes_and_several_heads(tmp_path: Path) -> None:
    given, metadata = headed(scene(5))
    metadata["heads"]["tone"] = SavedHead({}, torch.ones(2))
    for count in (5, 0):
        for extension in HOLDING:
            path = tmp_path / f"scene{count}{extension}"
            codecs.encode(given.select(torch.arange(count)), path, metadata)
            found, about = codecs.decode(path)
            assert list(about["heads"]) == ["glare", "tone"]
            assert found.extras["shine"].shape == (count, 3)


def test_a_ply_that_lost_a_part_of_it_elsewhere_is_read_without(tmp_path: Path) -> None:
    given, metadata = headed(scene())
    codecs.encode(given, tmp_path / "scene.ply", metadata)
    header, rows = (tmp_path / "scene.ply").read_bytes().split(b"end_header\n", 1)
    for spoiled in (
        header + b"end_header\n" + rows[: -50 * 4],
        header.replace(b"feature_1", b"feature_x") + b"end_header\n" + rows,
        header.replace(b'[{"name"', b'[{"game"') + b"end_header\n" + rows,
    ):
        (tmp_path / "spoiled.ply").write_bytes(spoiled)
        found, about = codecs.decode(tmp_path / "spoiled.ply")
        assert torch.equal(found.means, given.means)
        assert found.extras == {}
        assert "heads" not in about
        assert about["notes"][0].startswith("ignored the heads of the scene")
    for spoiled in (
        header + b"end_header\n" + rows[:-4],
        header.replace(b'"weights":50', b'"weights":51') + b"end_header\n" + rows,
    ):
        (tmp_path / "spoiled.ply").write_bytes(spoiled)
        with pytest.raises(DataError, match="not whole"):
            codecs.decode(tmp_path / "spoiled.ply")


@pytest.mark.parametrize("extension", [".ply", ".glb", ".vq"])
def test_damaged_heads_are_refused(extension: str, tmp_path: Path) -> None:
    given, metadata = headed(scene())
    path = tmp_path / f"scene{extension}"
    codecs.encode(given, path, metadata)
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(DataError):
        codecs.decode(path)
    if extension != ".vq":  # there the checksum tells first
        path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
        with pytest.raises(DataError, match="damaged: weights of the head glare are not finite"):
            codecs.decode(path)


def test_a_gltf_that_tells_wrong_sizes_is_refused(tmp_path: Path) -> None:
    given, metadata = headed(scene())
    path = tmp_path / "scene.gltf"
    codecs.encode(given, path, metadata)
    document = json.loads(path.read_text())
    stored = document["asset"]["extras"]["splat"]["heads"][0]
    weights = document["accessors"][stored["accessor"]]
    for count, message in ((49, "49 weights"), (51, "cut short or damaged")):
        weights["count"] = count
        path.write_text(json.dumps(document))
        with pytest.raises(DataError, match=message):
            codecs.decode(path)
    weights["count"] = 50
    document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["_FEATURE_1"]]["count"] = 39
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="39 values of _FEATURE_1, there are 40"):
        codecs.decode(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no name"},
        {"options": [1]},
        {"options": {"a": float("inf")}},
        {"options": {"a": {"b": 1}}},
        {"options": {"a": "x" * 5000}},
        {"weights": -1},
        {"weights": 1 << 40},
        {"weights": True},
        {"width": 0},
        {"width": 300},
        {"features": None},
        {"features": 3},
    ],
)
def test_what_is_said_of_a_head_is_checked(wrong: dict) -> None:
    right = {"name": "glare", "options": {"a": 1}, "weights": 5, "features": "shine", "width": 2}
    assert understood([right])[0].width == 2
    for about in ([{**right, **wrong}], [right, {**right, "features": "other"}], {"name": "glare"}, [5]):
        with pytest.raises(ValueError, match="head"):
            understood(about)


def test_rows_and_heads_stay_together(tmp_path: Path) -> None:
    """What an export does to the rows: filters, pruning, lower degree."""
    from splat.codecs import search

    given, metadata = headed(scene())
    kept = torch.tensor([3, 1, 30])
    changed = search.lower_degree(search.survivors(given, kept), 0)
    codecs.encode(changed, tmp_path / "scene.ply", metadata)
    found, _ = codecs.decode(tmp_path / "scene.ply")
    assert torch.equal(found.extras["shine"], given.extras["shine"][kept])
    notes = codecs.encode(replace(given, extras={}), tmp_path / "bare.ply", metadata)
    assert notes == ["the head glare is left out: the scene lacks shine, which it reads"]
    assert "heads" not in codecs.decode(tmp_path / "bare.ply")[1]
