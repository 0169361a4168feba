"""What every format shares: options, losses, bounded reading."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import scenes
import torch
import zstandard

from splat.codecs import bounded, registry
from splat.codecs.format import Format
from splat.codecs.options import settle_options
from splat.core import DataError, UsageError
from splat.core.heads import SavedHead

PATH = Path("scene.xyz")


@dataclass(frozen=True)
class _Options:
    version: int | None = None
    gain: float = 1.0
    fast: bool = False
    target: str = "none"


FORMAT = Format(
    "XYZ", (".xyz", ".more.xyz"), lambda p, h: h.startswith(b"xyz"), lambda p: None, options=_Options
)


def test_options_are_converted_and_checked() -> None:
    assert settle_options(FORMAT, None) == _Options()
    given = {"version": "3", "gain": 2, "fast": "true", "target": "spark"}
    assert settle_options(FORMAT, given) == _Options(3, 2.0, True, "spark")
    assert settle_options(FORMAT, {"version": "none"}) == _Options(None)
    assert settle_options(FORMAT, _Options(7)) == _Options(7)
    for bad, message in (
        ({"verison": 3}, "XYZ has no option 'verison': did you mean 'version'?"),
        ({"zzz": 3}, "XYZ has no option 'zzz'; it has version, gain, fast, target"),
        ({"version": "three"}, "option version: expected int or none, got 'three'"),
        ({"fast": 1}, "option fast: expected bool, got 1"),
        ({"version": True}, "option version: expected int or none, got True"),
        (5, "expected a mapping of names, got int"),
    ):
        with pytest.raises(UsageError) as error:
            settle_options(FORMAT, bad)
        assert message in str(error.value)


def test_losses_name_everything_that_is_dropped() -> None:
    extras = {"mask": torch.zeros(3), "shine": torch.zeros(3, 4)}
    scene = replace(scenes.soft(3), antialiased=True, extras=extras)
    heads = {"glare": SavedHead({}, torch.zeros(5), "shine")}
    metadata = {"offset": [1, 2.5, 3], "up_axis": "z", "heads": heads, "codebooks": {"dc": 1}}
    lost = replace(FORMAT, sh_degree=1).losses(scene, metadata)
    assert [line.split(" file ")[1][:28] for line in lost] == [
        "holds colours up to SH degre",
        "has no antialiasing flag: vi",
        "does not hold the offset (1,",
        "does not say which axis is u",
        "does not hold the head glare",
        "does not hold mask: left out",
    ]
    everything = frozenset({"antialiased", "offset", "up_axis", "heads"})
    assert replace(FORMAT, holds=everything).losses(scene, metadata) == [
        "a XYZ file does not hold mask: left out"
    ]


def test_the_longest_extension_that_fits_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    long = replace(FORMAT, name="LONG", extensions=(".more.xyz",), write=lambda *a: [])
    short = replace(FORMAT, name="SHORT", extensions=(".xyz",), write=lambda *a: [])
    monkeypatch.setattr(registry, "_FORMATS", (short, long))
    assert registry.format_to_write("a.XYZ").name == "SHORT"
    assert registry.format_to_write("a.more.xyz").name == "LONG"
    with pytest.raises(UsageError, match="no option 'level'"):
        registry.encode(scenes.soft(3), "a.xyz", options={"level": 3})
    with pytest.raises(UsageError, match="up_axis: expected one of x, -x"):
        registry.encode(scenes.soft(3), "a.xyz", {"up_axis": "up"})


def test_an_inflater_reads_exactly_and_refuses_damage() -> None:
    content = bytes(range(256)) * 5000
    packed = gzip.compress(content)
    inflater = bounded.Inflater(PATH, packed)
    assert inflater.read(10) + inflater.read(len(content)) == content
    assert inflater.read(5) == b""
    for bad, message in (
        (packed[: len(packed) // 2], "cut short"),
        (packed[:100] + b"\xff" * 40 + packed[140:], "damaged"),
        (b"not gzip", "damaged"),
        (b"", "cut short"),
    ):
        with pytest.raises(DataError, match=f"^scene.xyz: {message}"):
            bounded.Inflater(PATH, bad).read(len(content))


def test_bombs_are_refused_before_they_unfold() -> None:
    size = 1 << 30
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(1 << 8)) + squeeze.flush()
    writer = zstandard.ZstdCompressor().compressobj()
    frame = b"".join(writer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + writer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="too many for a file of"):
            bounded.Inflater(PATH, bomb).read(size)
        assert len(bounded.Inflater(PATH, bomb).read(1000)) == 1000
        with pytest.raises(DataError, match="too many"):
            bounded.unzstd(PATH, frame, size, "positions")
        with pytest.raises(DataError, match="should decompress to 1,000 bytes, and give more"):
            bounded.unzstd(PATH, frame, 1000, "positions")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_zstd_frames_have_the_length_that_was_promised() -> None:
    frame = zstandard.compress(b"abc" * 100)
    assert bounded.unzstd(PATH, frame, 300, "positions") == b"abc" * 100
    for bad, size, message in (
        (frame, 301, "should decompress to 301 bytes, and give 300"),
        (frame[:-2], 300, "should decompress to 300 bytes"),
        (b"\0" * 20, 300, "positions cannot be decompressed"),
        (b"", 300, "give 0"),
    ):
        with pytest.raises(DataError, match=message):
            bounded.unzstd(PATH, bad, size, "positions")


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "scene.zip"
    members = [("meta.json", b"{}"), ("deep/means.webp", b"webp" * 100)]
    whole = bounded.pack_archive(members)
    assert whole == bounded.pack_archive(members)
    path.write_bytes(whole)
    with bounded.open_archive(path) as archive:
        assert archive.names() == ["meta.json", "deep/means.webp"]
        assert archive.read("deep/means.webp") == b"webp" * 100
        with pytest.raises(DataError, match=r"it has no 'sh0\.webp'"):
            archive.read("sh0.webp")
    for bad in (whole[:-30], whole[:20], b"PK\x03\x04", b""):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="damaged or cut short"), bounded.open_archive(path):
            pass
    path.write_bytes(whole.replace(b"webpwebpwebp", b"webpwebqwebp", 1))
    with bounded.open_archive(path) as archive, pytest.raises(DataError, match="CRC"):
        archive.read("deep/means.webp")
    for name in ("../outside", "/etc/passwd", "a/../../b", "c:\\x", "a\\..\\b"):
        path.write_bytes(bounded.pack_archive([(name, b"x")]))
        with pytest.raises(DataError, match="names a file outside itself"), bounded.open_archive(path):
            pass


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", bytes(100 << 20))
    path = tmp_path / "bomb.zip"
    path.write_bytes(buffer.getvalue())
    with bounded.open_archive(path) as archive, pytest.raises(DataError, match="too many for an archive"):
        archive.read("meta.json")


def test_members_of_a_folder_stay_inside(tmp_path: Path) -> None:
    inside = tmp_path / "scene"
    inside.mkdir()
    (inside / "means.webp").write_bytes(b"webp")
    (tmp_path / "secret").write_bytes(b"secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    meta = inside / "meta.json"
    assert bounded.read_member(meta, inside, "means.webp") == b"webp"
    for name in ("../secret", "link", str(tmp_path / "secret"), ".", "", "nothing", "a\0b"):
        with pytest.raises(DataError, match=r"meta\.json: "):
            bounded.read_member(meta, inside, name)
