"""The INRIA .ply: what is written, what is read, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenes
import torch
from damage import check_reader, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.codecs import decode, differences, encode, formats, inspect
from splat.core import DataError, Gaussians, UsageError, sh


def small(degree: int = 3, count: int = 5, antialiased: bool = False) -> Gaussians:
    scene = scenes.soft(count, antialiased=antialiased).to(torch.float32)
    return replace(scene, sh=scene.sh[:, : sh.coefficients(degree)])


def written(folder: Path, scene: Gaussians, **metadata) -> Path:
    path = folder / "scene.ply"
    encode(scene, path, metadata)
    return path


def header_and_rows(path: Path) -> tuple[list[bytes], bytes]:
    head, rows = path.read_bytes().split(b"end_header\n", 1)
    return head.splitlines(), rows


def assert_same(a: Gaussians, b: Gaussians) -> None:
    for (name, left), (_, right) in zip(a.named_tensors(), b.named_tensors(), strict=True):
        assert torch.equal(left, right), name
    assert a.antialiased == b.antialiased


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("antialiased", [False, True])
def test_round_trip_is_exact(tmp_path: Path, degree: int, antialiased: bool) -> None:
    scene = small(degree, antialiased=antialiased)
    back, metadata = decode(written(tmp_path, scene))
    assert_same(back, scene)
    assert metadata == {"format": "PLY", "version": "1.0", "comments": metadata["comments"], "notes": []}
    ply = next(form for form in formats() if form.name == "PLY")
    assert set(ply.max_error(scene, ply.options()).values()) == {0.0}
    assert differences(scene, back) == ply.max_error(scene, ply.options())


def test_an_independent_reader_finds_the_published_layout(tmp_path: Path) -> None:
    """plyfile reads it; columns as in the 3DGS authors' files: f_rest goes channel by channel."""
    plyfile = pytest.importorskip("plyfile", reason="plyfile is not installed")
    scene = small()
    vertex = plyfile.PlyData.read(written(tmp_path, scene))["vertex"]
    names = [p.name for p in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[54:] == ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert len(names) == 62
    assert all(p.val_dtype == "f4" for p in vertex.properties)
    assert np.array_equal(vertex["f_rest_0"], scene.sh[:, 1, 0])
    assert np.array_equal(vertex["f_rest_14"], scene.sh[:, 15, 0])
    assert np.array_equal(vertex["f_rest_15"], scene.sh[:, 1, 1])
    assert np.array_equal(vertex["f_rest_44"], scene.sh[:, 15, 2])
    assert np.array_equal(vertex["rot_0"], scene.quats[:, 0])
    assert not vertex["nx"].any()


def test_comments_carry_the_mode_and_the_offset(tmp_path: Path) -> None:
    offset = [431234.0625, -1e-17, 5.1e6 + 1 / 3]
    path = written(
        tmp_path, small(antialiased=True), comments=["made by\na test"], offset=offset, up_axis="-y"
    )
    assert b"comment SplatRenderMode: mip" in header_and_rows(path)[0]
    scene, metadata = decode(path)
    assert scene.antialiased
    assert metadata["offset"] == offset  # to the last bit
    assert metadata["up_axis"] == "-y"
    assert metadata["comments"][0] == "made by a test"
    # Passed on with the scene, nothing is said twice.
    again = tmp_path / "again.ply"
    encode(scene, again, metadata)
    assert again.read_bytes() == path.read_bytes()


def test_reading_goes_by_the_header(tmp_path: Path) -> None:
    """Other order and types, no normals, further properties and elements, CRLF, big-endian."""
    scene = small(1)
    path = written(tmp_path, scene)
    lines, rows = header_and_rows(path)
    names = [line.split()[-1].decode() for line in lines if line.startswith(b"property")]
    columns = dict(zip(names, np.frombuffer(rows, "<f4").reshape(5, -1).T, strict=True))
    kept = sorted(name for name in names if not name.startswith("n"))
    kinds = {name: ("double", ">f8") if name in ("x", "opacity") else ("float", ">f4") for name in kept}
    kinds["confidence"], columns["confidence"] = ("uchar", "u1"), np.arange(5)
    table = np.empty(5, [(name, kinds[name][1]) for name in kinds])
    for name in kinds:
        table[name] = columns[name]
    head = [
        "ply",
        "format binary_big_endian 1.0",
        "obj_info of no account",
        "element camera 2",
        "property int id",
    ]
    head += ["element vertex 5", *(f"property {kinds[name][0]} {name}" for name in kinds)]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    other = tmp_path / "other.PLY"
    other.write_bytes("\r\n".join(head).encode() + bytes(8) + table.tobytes() + b"\x03" + bytes(12))
    back, metadata = decode(other)
    assert_same(back, scene)
    assert metadata["notes"] == ["ignored properties: confidence", "ignored elements: camera, face"]


def test_many_rows_are_read_and_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = small(2, count=23)
    whole = written(tmp_path, scene).read_bytes()
    monkeypatch.setattr("splat.codecs.ply._ROWS", 7)
    path = written(tmp_path, scene)
    assert path.read_bytes() == whole
    assert_same(decode(path)[0], scene)


def test_real_files(shared_data: Callable[[str], Path]) -> None:
    counts = {
        "ply/kacytran_inria_it7000.ply": (9080, 3),
        "ply/pc_short.ply": (100, 3),
        "converted/guitar_sh0.ply": (90854, 0),
        "converted/playbot_lod3_sh2.ply": (31000, 2),
        "tiny_metalsplatter/test-splat.3-points-from-train.ply": (3, 3),
    }
    for name, expected in counts.items():
        scene, _ = decode(shared_data("splats") / name)
        assert (len(scene), scene.sh_degree) == expected
    # Some writers store an opacity of exactly 1 as an infinite logit.
    _, metadata = decode(shared_data("splats/converted/guitar_sh0.ply"))
    assert metadata["notes"] == ["opacities of exactly 0 or 1, read as logits of magnitude 16: 667"]


def test_nothing_is_written_where_a_value_is_not_finite(tmp_path: Path) -> None:
    scene, path = small(), tmp_path / "scene.ply"
    path.write_bytes(b"the old file")
    scene.log_scales[3, 1] = torch.nan
    with pytest.raises(
        DataError, match=r"was not written: 1 of 5 .* in log_scales \(1\); the first is Gaussian 3"
    ):
        encode(scene, path)
    wide = small().to(torch.float64)
    wide.means[2, 1] = 1e39
    with pytest.raises(DataError, match=r"was not written: in float32: 1 of 5 .* the first is Gaussian 2"):
        encode(wide, path)
    assert path.read_bytes() == b"the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["scene.ply"]


def test_what_encode_refuses_and_says(tmp_path: Path) -> None:
    scene = small()
    with pytest.raises(UsageError, match=r"no format to write for \.xyz; choose from .*\.ply"):
        encode(scene, tmp_path / "scene.xyz")
    with pytest.raises(DataError, match="cannot be written"):
        encode(scene, tmp_path / "missing" / "scene.ply")
    scene.extras["mask"] = torch.zeros(5)
    assert encode(scene, tmp_path / "scene.ply") == ["a PLY file does not hold mask: left out"]
    activated = replace(small(), logit_opacities=small().opacities(), log_scales=small().scales())
    notes = encode(activated, tmp_path / "scene.ply")
    assert any("activated values where logits belong" in note for note in notes)


HEADER = b"ply\nformat binary_little_endian 1.0\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "cut short: the header declares 5 Gaussians of 248 bytes, the file has 4"),
        (lambda b: b[:300], "the PLY header has no end_header line"),
        (lambda b: b"", "empty; copy or download it again"),
        (lambda b: b"P" + b[1:], "not a PLY file"),
        (lambda b: b.replace(b"vertex 5", b"vertex 999999999999"), "cut short"),
        (lambda b: b.replace(b"vertex 5", b"vertex -5"), "line 3 of the PLY header is 'element vertex -5'"),
        (lambda b: b.replace(b"vertex 5", b"vertex 1" + b"0" * 40), "line 3 of the PLY header"),
        (lambda b: b.replace(b"vertex 5", b"points 5"), "no vertex element"),
        (lambda b: b.replace(b"binary_little_endian", b"ascii"), "a PLY file in text form"),
        (lambda b: b.replace(b"binary_little_endian", b"binary_middle"), "names no known format"),
        (lambda b: b.replace(b"property float x\n", b"property quad x\n"), "line 4 of the PLY header"),
        (lambda b: b.replace(b"float ny", b"float nx"), "declares a property twice"),
        (lambda b: b.replace(b"float opacity", b"float opaque"), "lacks the properties opacity"),
        (lambda b: b.replace(b" f_dc_", b" color_"), "a point cloud or mesh without Gaussians"),
        (lambda b: b.replace(b"f_rest_44", b"f_rest_45"), "45 f_rest properties; SH degrees"),
        (lambda b: b.replace(b"float f_rest_44", b"float more"), "44 f_rest properties; SH degrees"),
        (lambda b: b.replace(b"float nx", b"list uchar int nx"), "a list property"),
        (lambda b: b[:-4] + np.float32(np.nan).tobytes(), "1 of 5 Gaussians have values that are NaN"),
    ],
)
def test_damage_is_refused_in_one_clear_line(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = written(tmp_path, small())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        decode(path)
    first = str(error.value).splitlines()[0]
    assert message in first
    assert first.startswith(str(path))


def test_inspect_describes_the_file(tmp_path: Path) -> None:
    scene = small(antialiased=True)
    path = written(tmp_path, scene, comments=["hello"])
    facts = inspect(path)
    assert facts["count"] == 5
    assert facts["sh_degree"] == 3
    assert facts["antialiased"] is True
    assert facts["bytes"] == path.stat().st_size
    assert facts["comments"] == ["hello", "SplatRenderMode: mip"]
    assert facts["bounds"]["min"] == pytest.approx(scene.means.amin(0).tolist())
    assert facts["scale"]["quantiles"]["1"] == pytest.approx(float(scene.scales().max()))
    assert facts["opacity"]["quantiles"]["0.5"] == pytest.approx(float(scene.opacities().median()))
    assert sum(facts["scale"]["histogram"]["counts"]) == 15
    assert sum(facts["opacity"]["histogram"]["counts"]) == 5
    assert facts["suspicious"] == []


def test_inspect_tells_what_is_suspicious(tmp_path: Path) -> None:
    scene = scenes.soft(200).to(torch.float32)
    scene.log_scales -= 2
    path = written(tmp_path, scene)
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    assert inspect(path)["suspicious"] == [
        "Gaussians with NaN or infinite values: 1; the first is Gaussian 199"
    ]

    scene.log_scales[:, 0] = 0.1
    scene.log_scales[7] = 9.0
    scene.log_scales.clamp_(min=0)
    scene.quats[3] = 0
    scene.logit_opacities = scene.opacities()
    lines = "\n".join(inspect(written(tmp_path, scene))["suspicious"])
    assert "all opacity values lie between 0 and 1" in lines
    assert "no scale is smaller than 1" in lines
    assert "Gaussians larger than the radius that holds 99% of the centres" in lines
    assert "zero quaternions, drawn unrotated: 1" in lines

    empty = inspect(written(tmp_path, scene.select(torch.zeros(0, dtype=torch.int64))))
    assert empty["suspicious"] == ["there is no Gaussian to draw"]
    assert empty["bounds"] is empty["scale"] is empty["opacity"] is None


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("fuzz") / "scene.ply"
    encode(small(1, count=3, antialiased=True), path, {"offset": [1.0, 2.0, 3.0]})
    return path, path.read_bytes()


@pytest.mark.fuzz
@given(data=st.data())
def test_fuzz_a_damaged_file_is_refused_or_read(target: tuple[Path, bytes], data: st.DataObject) -> None:
    path, original = target
    path.write_bytes(data.draw(damaged(original, original.index(b"end_header") + 12)))
    check_reader(path)


@pytest.mark.fuzz
@settings(max_examples=100)
@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from(
                ["element vertex 2", "property float x", "property list uchar int i", "comment offset 1 2 3"]
            ),
            st.sampled_from(
                ["property double f_rest_0", "element face 99999999", "comment offset 1e999 nan x"]
            ),
            st.text(max_size=30),
        ),
        max_size=20,
    ),
    body=st.binary(max_size=64),
)
def test_fuzz_any_header_is_refused_or_read(
    target: tuple[Path, bytes], lines: list[str], body: bytes
) -> None:
    text = HEADER + "\n".join([*lines, "end_header", ""]).encode("utf-8", "surrogatepass")
    target[0].write_bytes(text + body)
    check_reader(target[0])
