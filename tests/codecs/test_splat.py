"""The .splat format, read only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import check_reader
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs import decode, inspect
from splat.core import DataError, sh

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])


def rows(count: int = 3) -> np.ndarray:
    random = np.random.default_rng(0)
    table = np.zeros(count, ROW)
    table["mean"] = random.normal(size=(count, 3))
    table["scale"] = random.uniform(0.01, 0.5, size=(count, 3))
    table["color"] = random.integers(0, 256, size=(count, 4))
    table["quat"] = random.integers(0, 256, size=(count, 4))
    return table


def test_values_are_what_the_bytes_say(tmp_path: Path) -> None:
    table = rows()
    table["color"][:, 3] = (0, 128, 255)
    table["quat"][0] = (255, 128, 0, 192)
    table["scale"][2, 1] = 0
    path = tmp_path / "scene.splat"
    path.write_bytes(table.tobytes())
    scene, metadata = decode(path)
    assert np.array_equal(scene.means, table["mean"])
    np.testing.assert_allclose(scene.scales()[:2], table["scale"][:2], rtol=1e-6)
    assert scene.scales()[2, 1] < 1e-12
    assert scene.quats[0].tolist() == [127 / 128, 0, -1, 0.5]
    np.testing.assert_allclose(sh.to_rgb(scene.sh[:, 0]), table["color"][:, :3] / 255, atol=1e-6)
    # The extreme bytes stand for any opacity that is not drawn, or drawn with the largest alpha.
    opacities = scene.opacities().tolist()
    assert opacities[0] < 1 / 255
    assert opacities[1] == pytest.approx(128 / 255)
    assert opacities[2] > 0.99
    assert not scene.antialiased
    assert any("scales of exactly 0, read as exp(-30): 1" in note for note in metadata["notes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "95 bytes are not a multiple of 32"),
        (lambda b: b"", "0 bytes are not a multiple of 32"),
        (
            lambda b: b[:12] + np.float32(-1).tobytes() + b[16:],
            "1 of 3 Gaussians have a negative or NaN scale",
        ),
        (lambda b: b[:44] + np.float32(np.nan).tobytes() + b[48:], "the first is Gaussian 1: "),
        (
            lambda b: b[:8] + np.float32(np.inf).tobytes() + b[12:],
            "1 of 3 Gaussians have values that are NaN or inf",
        ),
    ],
)
def test_damage_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "scene.splat"
    path.write_bytes(change(rows().tobytes()))
    with pytest.raises(DataError) as error:
        decode(path)
    assert message in str(error.value).splitlines()[0]
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_no_scene(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.splat: no such file"):
        decode(tmp_path / "missing.splat")
    with pytest.raises(DataError, match="a folder that holds no scene"):
        decode(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"not a scene that can be read; the formats are .*\.ply, .*\.splat"):
        decode(tmp_path / "photo.jpg")


def test_a_real_file(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("splats/splat/sjeongab_model.splat")
    scene, _ = decode(path)
    assert len(scene) == 111650
    facts = inspect(path)
    assert facts["format"] == ".splat"
    assert facts["suspicious"] == [
        "Gaussians too transparent to be drawn (opacity under 1/255): 3667 of 111650"
    ]


@pytest.mark.fuzz
@given(
    noise=st.binary(min_size=0, max_size=200),
    edits=st.lists(st.tuples(st.integers(0, 95), st.integers(0, 255))),
)
def test_fuzz_any_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.splat"
    data = bytearray(rows().tobytes())
    for at, value in edits:
        data[at] = value
    for content in (bytes(data), noise):
        path.write_bytes(content)
        check_reader(path)
