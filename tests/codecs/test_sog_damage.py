"""SOG: damage is refused in one line, memory stays bounded, streamed scenes."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scenes
import torch
from damage import check_reader, damaged
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs import decode, encode
from splat.codecs.format import differences
from splat.core import DataError, Gaussians


def scene(count: int = 21, seed: int = 0) -> Gaussians:
    whole = scenes.mixed(count, seed).to(torch.float32)
    whole.sh = whole.sh[:, :4].contiguous()
    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "scene"
    place.mkdir()
    encode(scene(), place / "meta.json")
    return place


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    edit(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        decode(path)
    assert str(error.value).startswith(str(path))
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(version=3), "SOG of version 3"),
        (lambda m: m.update(count=30), "'means_l.webp' has 32 texels for 300"),
        (lambda m: m.update(count=10**15), "texels for 1,000,000,000,000,000 Gaussians"),
        (lambda m: m.update(count=-1), "count in its meta.json must be a whole number"),
        (lambda m: m.update(count=True), "count in its meta.json must be a whole number"),
        (lambda m: m.pop("quats"), "quats is not an object"),
        (lambda m: m["means"].update(mins=[0, 1]), "means.mins in its meta.json must be 3 numbers"),
        (
            lambda m: m["means"].update(mins=[0, 1, float("nan")]),
            "means.mins in its meta.json must be finite",
        ),
        (lambda m: m["means"].update(maxs=[0, 1, 10**400]), "means.maxs in its meta.json must be numbers"),
        (lambda m: m["means"].update(maxs=[0, 1, 900]), "NaN or infinite"),
        (lambda m: m["means"].update(files=["means_l.webp"]), "means.files in its meta.json must be 2 names"),
        (
            lambda m: m["scales"].update(codebook=[1, "x"]),
            "scales.codebook in its meta.json must be 1 to 256",
        ),
        (lambda m: m["scales"].update(codebook=[1.0]), "scales has a value beyond its codebook of 1"),
        (lambda m: m["sh0"].update(codebook=list(range(257))), "sh0.codebook in its meta.json must be 1 to"),
        (lambda m: m["quats"].update(files=["scales.webp"]), None),
        (lambda m: m["quats"].update(files=["sh0.webp"]), "rotations have no mode; the first is Gaussian"),
        (lambda m: m["quats"].update(files=["none.webp"]), "'none.webp' cannot be read"),
        (lambda m: m["quats"].update(files=["../meta.json"]), "it names a file outside itself"),
        (lambda m: m["quats"].update(files=["/etc/passwd"]), "it names a file outside itself"),
        (lambda m: m["quats"].update(files=["meta.json"]), "the image 'meta.json' cannot be read"),
        (lambda m: m["shN"].update(files=["sh0.webp", "shN_labels.webp"]), "8 texels wide, not 64 times"),
        (lambda m: m["shN"].update(count=3), "of a palette of 3"),
        (lambda m: m["shN"].update(bands=2), "shN.bands does not fit"),
        (lambda m: m.update(asset={"offset": [1, 2]}), "asset.offset in its meta.json must be 3 numbers"),
    ],
)
def test_damaged_metadata_is_refused(
    folder: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change(folder, lambda meta: (edit(meta), meta.update(count=300) if meta["count"] == 30 else None))
    if message is None:
        decode(folder)  # opaque everywhere: mode 255
    else:
        assert message in refusal(folder)


def test_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "sh0.webp").read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "the image 'sh0.webp' cannot be read"),
        (b"", "the image 'sh0.webp' cannot be read"),
        # A header that promises the largest WebP: 2 GiB of memory, if it were believed.
        (whole[:21] + b"\xff\xff\xff\x0f" + whole[25:], "'sh0.webp' promises 16384 x 16384 texels"),
    ):
        (folder / "sh0.webp").write_bytes(content)
        assert message in refusal(folder)
    (folder / "sh0.webp").unlink()
    (tmp_path / "elsewhere.webp").write_bytes(whole)
    (folder / "sh0.webp").symlink_to(tmp_path / "elsewhere.webp")
    assert "not an ordinary file inside" in refusal(folder)
    (folder / "meta.json").write_text('{"means": ' + "[" * 100_000)
    assert "no JSON" in refusal(folder)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sog"
    encode(scene(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert "not a whole zip file" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", b'{"version": 2, "means": {}}')
    assert "count in its meta.json" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", b" " * (100 << 20))
    assert "too many for an archive of this size" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../meta.json", b"{}")
        archive.writestr("meta.json", b"{}")
    assert "it names a file outside itself" in refusal(path)


@pytest.fixture
def streamed(tmp_path: Path) -> Path:
    """Two regions: the first in levels 0 and 1, the second in level 1 alone; and a sky."""
    place = tmp_path / "streamed"
    for name, count, seed in (("fine", 12, 1), ("coarse", 9, 2), ("sky", 4, 3)):
        (place / name).mkdir(parents=True)
        encode(scene(count, seed), place / name / "meta.json")
    bound = {"min": [0, 0, 0], "max": [1, 1, 1]}
    levels = [
        {"0": {"file": 0, "offset": 2, "count": 10}, "1": {"file": 1, "offset": 0, "count": 4}},
        {"1": {"file": 1, "offset": 4, "count": 5}},
    ]
    tree = {"bound": bound, "children": [{"bound": bound, "lods": lods} for lods in levels]}
    names = ["fine/meta.json", "coarse/meta.json"]
    lod_meta = {"lodLevels": 2, "environment": "sky/meta.json", "filenames": names, "tree": tree}
    (place / "lod-meta.json").write_text(json.dumps(lod_meta))
    return place


def test_streamed_scenes_are_read_at_the_finest_level_that_is_there(streamed: Path) -> None:
    fine, coarse, sky = (decode(streamed / name)[0] for name in ("fine", "coarse", "sky"))
    found, metadata = decode(streamed)
    assert metadata["notes"] == []
    expected = Gaussians.cat([fine.select(torch.arange(2, 12)), coarse.select(torch.arange(4, 9)), sky])
    assert max(differences(expected, found).values()) == 0
    assert decode(streamed / "lod-meta.json")[0].means.equal(found.means)

    shutil.rmtree(streamed / "fine")
    shutil.rmtree(streamed / "sky")
    found, metadata = decode(streamed)
    assert found.means.equal(coarse.means)
    assert [note.split(":")[0] for note in metadata["notes"][:2]] == [
        "read at level of detail 1",
        "the environment 'sky/meta.json' is not there",
    ]
    shutil.rmtree(streamed / "coarse")
    assert "none of the scenes that it names is there" in refusal(streamed)


def test_damaged_streamed_scenes_are_refused(streamed: Path) -> None:
    path = streamed / "lod-meta.json"
    whole = path.read_text()

    def leaf(meta: dict[str, Any], place: int) -> dict[str, Any]:
        return meta["tree"]["children"][place]["lods"]["1"]

    def nest(meta: dict[str, Any]) -> None:
        for _ in range(70):
            meta["tree"] = {"children": [meta["tree"]]}

    edits: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
        (
            lambda m: leaf(m, 1).update(count=6),
            "it names Gaussians up to 10 of 'coarse/meta.json', which has 9",
        ),
        (lambda m: leaf(m, 1).update(file=2), "level '1' of a region names file 2 of 2"),
        (lambda m: leaf(m, 1).update(offset=-1), "offset in its meta.json must be a whole number"),
        (lambda m: m["tree"]["children"].append(m["tree"]["children"][1]), "two regions share Gaussians"),
        (lambda m: m.update(filenames=["../x", "y"]), "it names a file outside itself"),
        (lambda m: m.update(filenames=3), "filenames must be a list of names"),
        (nest, "a tree deeper than 64 levels"),
    ]
    for edit, message in edits:
        meta = json.loads(whole)
        edit(meta)
        path.write_text(json.dumps(meta))
        assert message in refusal(streamed)
    path.write_text(whole)
    (streamed / "coarse" / "sh0.webp").unlink()
    assert "'sh0.webp' cannot be read" in refusal(streamed)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("whole")
    encode(scene(), place / "meta.json")
    return {file.name: file.read_bytes() for file in sorted(place.iterdir())}


@pytest.mark.fuzz
@given(st.data())
def test_fuzz_a_damaged_file_of_a_folder(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    place = tmp_path_factory.getbasetemp() / "fuzz_sog"
    place.mkdir(exist_ok=True)
    name = data.draw(st.sampled_from(sorted(files)))
    for other, content in files.items():
        if not (place / other).exists():
            (place / other).write_bytes(content)
    (place / name).write_bytes(data.draw(damaged(files[name], 64)))
    try:
        check_reader(place)
    finally:
        (place / name).unlink()


@pytest.mark.fuzz
@given(st.data())
def test_fuzz_a_damaged_archive(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.sog"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    whole = path.read_bytes()
    path.write_bytes(data.draw(damaged(whole, 64)))
    check_reader(path)
