"""SPZ: versions, viewers, the range of positions, extension records, axes, damage."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from roundtrip import memory_limit, scene

from splat.codecs import axes, decode, differences, encode, spz
from splat.core import DataError, UsageError, sh
from splat.core.rotations import quat_to_matrix

LEGACY = struct.Struct("<4sIIBBBB")


def version_of(path: Path) -> int:
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return struct.unpack_from("<I", data, 4)[0]


@pytest.mark.parametrize(
    ("options", "version"),
    [
        ({}, 3),
        ({"version": 2}, 2),
        ({"version": "4"}, 4),
        ({"viewer_target": "mkkellogg"}, 2),
        ({"viewer_target": "spark"}, 3),
        ({"viewer_target": "playcanvas"}, 4),
        ({"viewer_target": "three", "version": 4}, 4),
    ],
)
def test_the_version_is_chosen_by_number_or_by_viewer(tmp_path: Path, options: dict, version: int) -> None:
    encode(scene(5, 1, 0, antialiased=True), tmp_path / "a.spz", None, options)
    assert version_of(tmp_path / "a.spz") == version
    found, metadata = decode(tmp_path / "a.spz")
    assert metadata["version"] == str(version)
    assert found.antialiased


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 5}, "version must be 2, 3 or 4"),
        ({"version": 1}, "version must be 2, 3 or 4"),
        ({"viewer_target": "unity"}, "no viewer 'unity' is known; known: niantic, playcanvas"),
        ({"viewer_target": "spark", "version": 4}, "version 4 is not the one for spark, which is 3"),
        ({"sh1_bits": 9}, "must be 1 to 8"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encode(scene(5, 1, 0), tmp_path / "a.spz", None, options)


def test_fractional_bits_follow_the_extent_and_the_scale(tmp_path: Path) -> None:
    def bits(spread: float, scale: float) -> int:
        given = scene(50, 0, 0)
        given.means = given.means / given.means.abs().max() * spread
        given.log_scales[:] = np.log(scale)
        encode(given, tmp_path / "a.spz")
        return decode(tmp_path / "a.spz")[1]["fractional_bits"]

    assert bits(10, 0.1) == 12  # the reference writer's
    assert bits(10, 1e-4) == 17  # 8 steps in the median scale
    assert bits(10, 4e-6) == 19  # as many as hold 10 units
    assert bits(2047, 0.1) == 12
    assert bits(2049, 0.1) == 11  # beyond what 12 bits hold, where the reference writer wraps
    with pytest.raises(
        DataError, match=r"centres reach 1e\+05 units from the origin, .* steps of 0\.016 units"
    ):
        bits(1e5, 0.01)
    assert version_of(tmp_path / "a.spz") == 3  # the last good file still stands


def header(version: int, count: int, degree: int = 0, bits: int = 12, flags: int = 0) -> bytes:
    return LEGACY.pack(b"NGSP", version, count, degree, bits, flags, 0)


def test_version_1_and_degree_4(tmp_path: Path) -> None:
    path = tmp_path / "old.spz"
    means = np.array([[1, -2, 0.5], [1000, 0, -3]], "<f2")
    rest = bytes([255, 0]) + bytes([128, 153, 102] * 2) + bytes([160] * 6) + bytes([128, 128, 255] * 2)
    path.write_bytes(gzip.compress(header(1, 2) + means.tobytes() + rest))
    found, metadata = decode(path)
    assert metadata["version"] == "1"
    assert found.means.tolist() == [[1, 2, -0.5], [1000, 0, 3]]  # right, up, back to right, down, front
    assert found.log_scales.unique().tolist() == [0.0]
    assert found.opacities().tolist() == pytest.approx([1, 0], abs=2e-6)

    streams = bytes(9) + b"\x80" + bytes(3) + bytes(3) + bytes([255] * 4) + bytes(range(100, 172))
    path.write_bytes(gzip.compress(header(3, 1, degree=4) + streams))
    found, metadata = decode(path)
    assert found.sh_degree == 3
    assert metadata["notes"] == ["ignored the harmonics above degree 3: the file has degree 4"]
    assert (found.sh[0, 15, 2].abs() * 128).tolist() == 144 - 128


def with_record(path: Path, *records: tuple[int, bytes]) -> None:
    """Version 4 with extension records between the header and the table of contents."""
    data = bytearray(path.read_bytes())
    extra = b"".join(struct.pack("<II", kind, len(content)) + content for kind, content in records)
    data[14] |= 2
    data[16:20] = struct.pack("<I", 32 + len(extra))
    path.write_bytes(bytes(data[:32]) + extra + bytes(data[32:]))


def test_extension_records_are_skipped_and_stated_axes_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "a.spz"
    given = scene(5, 3, 0)
    encode(given, path, None, {"version": 4})
    plain = decode(path)[0]
    with_record(path, (0x12340001, b"anything"), (0xADBE0003, struct.pack("<I", 4)))
    assert max(differences(plain, decode(path)[0]).values()) == 0
    encode(
        axes.convert(given.clone(), "RDF", "RUB"), path, None, {"version": 4}
    )  # stored as it is given: RDF
    with_record(path, (0xADBE0003, struct.pack("<I", 6)))
    assert max(differences(plain, decode(path)[0]).values()) < 1e-6
    encode(given, path, None, {"version": 4})
    with_record(path, (0xADBE0003, struct.pack("<I", 17)))
    with pytest.raises(DataError, match="names unknown axes"):
        decode(path)


@pytest.mark.parametrize("stored", spz._AXES)
def test_axes_turn_the_colours_and_the_ellipsoids_with_the_centres(stored: str) -> None:
    """Every axes' own directions: what is seen from a direction before is seen from it after, mirrored or not."""
    given = replace(scene(4, 3, 0), means=torch.eye(4)[:, :3].contiguous())
    unit = {"R": [1, 0, 0], "L": [-1, 0, 0], "D": [0, 1, 0], "U": [0, -1, 0], "F": [0, 0, 1], "B": [0, 0, -1]}
    matrix = torch.tensor(
        [unit[letter] for letter in stored], dtype=torch.float32
    ).T  # columns: where x, y, z point
    found = axes.convert(given.clone(), stored, "RDF")
    torch.testing.assert_close(found.means, given.means @ matrix.T)
    torch.testing.assert_close(
        found.covariances(), matrix @ given.covariances() @ matrix.T, atol=1e-5, rtol=1e-4
    )
    directions = torch.nn.functional.normalize(
        torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    before, after = sh.evaluate(given.sh, directions), sh.evaluate(found.sh, directions @ matrix.T)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    assert torch.allclose(torch.linalg.det(quat_to_matrix(found.quats)), torch.ones(4))


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(header(3, 4_000_000_000, 3)), "too many for a file of"),
        (gzip.compress(header(3, 1000) + bytes(100)), "Gaussians need 20,000 bytes, the file has 100"),
        (gzip.compress(header(3, 1, degree=5) + bytes(500)), "harmonics of degree 5"),
        (gzip.compress(header(3, 1, bits=25) + bytes(500)), "25 fractional bits"),
        (gzip.compress(header(7, 1) + bytes(500)), ".spz of version 7"),
        (gzip.compress(b"NGS!" + bytes(50)), "not a SPZ file"),
        (header(4, 1)[:15], "the header need 32 bytes"),
        (header(5, 1) + bytes(64), ".spz of version 5"),
        (header(4, 1)[:15] + struct.pack("<BI12x", 3, 32) + bytes(64), "3 streams"),
        (
            header(4, 20_000_000)[:15]
            + struct.pack("<BI12x", 5, 32)
            + struct.pack("<QQ", 40, 180_000_000) * 5
            + bytes(200),
            "positions promise 180,000,000 bytes",
        ),
        (
            header(4, 1)[:15]
            + struct.pack("<BI12x", 5, 32)
            + struct.pack("<QQ", 1 << 62, 9) * 5
            + bytes(200),
            "the positions need",
        ),
    ],
)
def test_damage_is_refused_within_the_memory_of_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.spz"
    path.write_bytes(content)
    with memory_limit(256 << 20), pytest.raises(DataError) as error:
        decode(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_zstd_bomb_behind_an_honest_header(tmp_path: Path) -> None:
    path = tmp_path / "bad.spz"
    frame = bomb(1 << 28)
    entries = struct.pack("<QQ", len(frame), 9) * 5
    path.write_bytes(header(4, 1)[:15] + struct.pack("<BI12x", 5, 32) + entries + frame * 5)
    with (
        memory_limit(256 << 20),
        pytest.raises(DataError, match="should decompress to 9 bytes, and give more"),
    ):
        decode(path)
