"""What holds of every format that is written: bounds, equal bytes, losses, damage, hostile files."""

from __future__ import annotations

import gzip
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import check_reader, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from roundtrip import CASES, memory_limit, name_of, round_trip, scene

from splat.codecs import Format, decode, encode, format_to_write, formats, inspect, losses
from splat.core import DataError, Gaussians
from splat.core.heads import SavedHead

Case = tuple[str, dict[str, Any]]
every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
MIB = 1 << 20


@every_case
@settings(max_examples=12)
@given(
    count=st.sampled_from([1, 2, 255, 256, 257, 700]),
    degree=st.integers(0, 3),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.01, 1.0, 3.0]),
)
def test_a_round_trip_stays_within_the_bounds_of_the_bits(
    tmp_path_factory: pytest.TempPathFactory, case: Case, count: int, degree: int, seed: int, spread: float
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bounds{case[0]}"
    given_scene = scene(count, degree, seed, spread)
    if case[0] == ".spz" and not _fits_spz(given_scene):
        with pytest.raises(DataError, match="centres reach"):
            encode(given_scene, path, None, case[1])
    else:
        round_trip(path, given_scene, case[1])


def _fits_spz(gaussians: Gaussians) -> bool:
    """Whether 24 bits can hold the farthest centre with steps no larger than the median scale."""
    steps = 2 ** math.floor(math.log2((2**23 - 1) / float(gaussians.means.abs().max())))
    return float(np.exp(np.median(gaussians.log_scales))) * min(steps, 2**23) >= 1


@every_case
def test_extremes_are_clamped_and_said(tmp_path: Path, case: Case) -> None:
    """Zero quaternions, certain opacities, the largest and smallest scales, one value repeated."""
    given_scene = scene(300, 2, 1)
    given_scene.quats[:3] = 0
    given_scene.quats[3] *= 1e30
    given_scene.quats[4] = torch.tensor([1.0, 0, 0, 0])
    given_scene.quats[5] = torch.tensor([-1.0, 0, 0, 0])
    given_scene.logit_opacities[:2] = torch.tensor([-40.0, 40.0])
    given_scene.log_scales[0] = torch.tensor([-30.0, 12.0, 0.0])
    given_scene.means[100:] = given_scene.means[100]
    back, _ = round_trip(tmp_path / f"scene{case[0]}", given_scene, case[1])
    assert torch.isfinite(back.logit_opacities).all()


@pytest.mark.parametrize(
    "form", [form for form in formats() if len(form.ladder) > 1], ids=lambda form: form.name
)
def test_each_rung_of_a_ladder_is_smaller(tmp_path: Path, form: Format) -> None:
    """From the finest options to the coarsest, as the search of a target takes for granted."""
    given_scene = scene(6000, 3, 0)
    sizes = []
    for number, options in enumerate(form.ladder):
        path = tmp_path / f"{number}{form.extensions[0]}"
        encode(given_scene, path, None, options)
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1


def test_an_empty_file_is_told_as_one(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    path.touch()
    with pytest.raises(DataError, match=r"scene\.ply: empty"):
        decode(path)


@every_case
def test_equal_scenes_give_equal_bytes(tmp_path: Path, case: Case) -> None:
    first, second = tmp_path / f"a{case[0]}", tmp_path / f"b{case[0]}"
    for path in (first, second):
        encode(scene(300, 3, 0), path, {"generator": "a test"}, case[1])
    assert first.read_bytes() == second.read_bytes()


@every_case
def test_what_is_read_lies_in_order_in_memory_of_its_own(tmp_path: Path, case: Case) -> None:
    """As the fused step of training wants it, in place."""
    path = tmp_path / f"scene{case[0]}"
    encode(scene(20, 3, 0), path, {}, case[1])
    for name, value in decode(path)[0].named_tensors():
        assert value.is_contiguous(), name
        assert value.numpy().flags.writeable, name


@every_case
def test_the_flag_the_frame_and_what_is_lost(tmp_path: Path, case: Case) -> None:
    path = tmp_path / f"scene{case[0]}"
    given_scene = scene(20, 3, 0, antialiased=True)
    given_scene.extras["mask"] = torch.zeros(20)
    metadata = {
        "offset": [1e6, 2.5, -3.0],
        "up_axis": "-y",
        "heads": {"glare": SavedHead({}, torch.zeros(5))},
    }
    form = format_to_write(path)
    said = losses(given_scene, path, metadata)
    notes = encode(given_scene, path, metadata, case[1])
    assert notes[: len(said)] == said
    back, found = decode(path)
    assert found["format"] == form.name
    for what, kept in (
        ("antialiasing", back.antialiased),
        ("offset", found.get("offset") == metadata["offset"]),
        ("which axis is up", found.get("up_axis") == "-y"),
        ("mask", "mask" in back.extras),
        ("glare", "heads" in found),
        ("up to SH degree", back.sh_degree == 3),
    ):
        assert kept != any(what in line for line in said), what
    assert inspect(path)["count"] == 20


@every_case
def test_the_content_tells_the_format_not_the_name(tmp_path: Path, case: Case) -> None:
    path = tmp_path / f"scene{case[0]}"
    encode(scene(40, 1, 0), path, None, case[1])
    if case[0] == ".splat":
        pytest.skip("nothing in a .splat tells what it is")
    renamed = tmp_path / "scene.bin"
    path.rename(renamed)
    assert decode(renamed)[1]["format"] == format_to_write(path).name


@every_case
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, case: Case, share: float) -> None:
    path = tmp_path / f"scene{case[0]}"
    encode(scene(300, 1, 0), path, None, case[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: math.floor(share * len(whole)) // 32 * 32 + 1])
    with pytest.raises(DataError) as error:
        decode(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()[0]) < 400


@pytest.mark.parametrize(
    ("name", "count", "degree", "version"),
    [
        ("compressed_ply/guitar.compressed.ply", 90854, 0, "2"),
        ("converted/kacytran_sh3.compressed.ply", 9080, 3, "2"),
        ("converted/playbot_lod3_sh2.compressed.ply", 31000, 2, "2"),
        ("converted/kacytran_sh3.glb", 9080, 3, "2.0"),
        ("converted/playbot_lod3_sh2.glb", 31000, 2, "2.0"),
        ("converted/kacytran_sh3_v3.spz", 9080, 3, "3"),
        ("converted/kacytran_sh3_v4.spz", 9080, 3, "4"),
        ("converted/playbot_lod3_sh2_v3.spz", 31000, 2, "3"),
        ("ksplat/kacytran_c0_sh2.ksplat", 9080, 2, "0.1"),
        ("ksplat/kacytran_c1_sh2.ksplat", 9080, 2, "0.1"),
        ("ksplat/kacytran_c2_sh2.ksplat", 9080, 2, "0.1"),
        ("ksplat/playbot_lod3_c1_sh2.ksplat", 31000, 2, "0.1"),
        ("splat/sjeongab_model.splat", 111650, 0, "1"),
        ("tiny_metalsplatter/test-splat.3-points-from-train.splat", 3, 0, "1"),
        ("tiny_metalsplatter/test-splat.3-points-from-train.spz", 3, 3, "3"),
        ("tiny_splat-transform_fixtures/minimal-raw.spz", 4, 0, "2"),
        ("tiny_splat-transform_fixtures/minimal-v2.spz", 4, 0, "2"),
        ("tiny_splat-transform_fixtures/minimal-v3.spz", 4, 0, "3"),
        ("tiny_splat-transform_fixtures/minimal-v4.spz", 4, 0, "4"),
        ("tiny_splat-transform_fixtures/minimal.ksplat", 4, 0, "0.1"),
        ("tiny_splat-transform_fixtures/minimal.splat", 4, 0, "1"),
    ],
)
def test_real_files_are_read(
    shared_data: Callable[[str], Path], name: str, count: int, degree: int, version: str
) -> None:
    found, metadata = decode(shared_data("splats") / name)
    assert (len(found), found.sh_degree, metadata["version"]) == (count, degree, version)


# A format's bounds as another program wrote it, which may truncate where we round: means, log scales, opacities,
# and the colours' range and bound, harmonics' bound.
_SPZ = {"means": 2.0**-13, "log_scales": 1 / 32, "opacities": 0.5 / 255, "sh0": 0.5 / 38.25, "shN": 8.5 / 128}
_HALF = 2.0**-11
_BYTE = {"opacities": 1 / 255, "sh0": 1 / 255 / 0.2820948}
_SAME = {
    "kacytran_sh3.glb": (
        {"means": 0.0, "log_scales": 1e-5, "opacities": 1e-6, "sh0": 0.0, "shN": 0.0},
        math.inf,
    ),
    "kacytran_sh3_v3.spz": (_SPZ, 127.5 / 38.25),
    "kacytran_sh3_v4.spz": (_SPZ, 127.5 / 38.25),
    "kacytran_c0_sh2.ksplat": ({**_BYTE, "means": 0.0, "log_scales": 1e-5, "shN": 0.0}, 0.5 / 0.2820948),
    "kacytran_c1_sh2.ksplat": (
        {**_BYTE, "means": 2.5 / 32767 / 2 + 1e-4, "log_scales": 2 * _HALF, "shN": _HALF},
        0.5 / 0.2820948,
    ),
    "kacytran_c2_sh2.ksplat": (
        {**_BYTE, "means": 2.5 / 32767 / 2 + 1e-4, "log_scales": 2 * _HALF, "shN": 0.41507 / 255},
        0.5 / 0.2820948,
    ),
}


@pytest.mark.parametrize("name", _SAME)
def test_the_same_scene_in_other_formats(shared_data: Callable[[str], Path], name: str) -> None:
    """Each column's sorted values agree within the bound: so they do if the rows agree, in whatever order.

    Centres in .ksplat reach 1000 units, where float32 arithmetic adds 1e-4; colours outside a format's range
    are clamped in it.
    """
    bounds, limit = _SAME[name]
    truth = decode(shared_data("splats/ply/kacytran_inria_it7000.ply"))[0]
    found = decode(shared_data("splats") / ("ksplat" if name.endswith("ksplat") else "converted") / name)[0]
    for what, bound in bounds.items():
        values = [_columns(scene, what) for scene in (truth, found)]
        width = values[1].shape[1]
        a, b = (np.sort(value[:, :width], 0) for value in values)
        if what == "sh0":
            a, b = a.clip(-limit, limit), b.clip(-limit, limit)
        if name == "kacytran_c2_sh2.ksplat" and what == "shN":
            # That writer leaves the last coefficient out of the range that it quantizes to.
            a = a.clip(-0.2001091, 0.2149573)
        assert np.abs(a - b).max() <= bound + 1e-6, what


def _columns(gaussians: Gaussians, what: str) -> np.ndarray:
    values = {
        "means": gaussians.means,
        "log_scales": gaussians.log_scales,
        "opacities": torch.sigmoid(gaussians.logit_opacities)[:, None],
        "sh0": gaussians.sh[:, 0],
        "shN": gaussians.sh[:, 1:].flatten(1),
    }
    return values[what].double().numpy()


# Each decoder once; .ply and .splat have their own tests.
_FUZZED = [case for case in CASES if case[0] not in (".ply", ".splat") and case[1].get("level", 1) == 1][:-1]
_FUZZED = [case for case in _FUZZED if case[1].get("version") != 2]


@pytest.mark.fuzz
@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's")
@pytest.mark.parametrize("case", _FUZZED, ids=name_of)
@given(data=st.data())
def test_fuzz_a_damaged_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, case: Case, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{case[0]}"
    if path not in _ORIGINALS:
        encode(scene(3, 1, 0), path, {"generator": "a test"}, case[1])
        _ORIGINALS[path] = path.read_bytes()
    original = _ORIGINALS[path]
    if case[1] == {"version": 3} and data.draw(st.booleans()):
        # What is inside the gzip stream is damaged rather than the stream.
        path.write_bytes(gzip.compress(data.draw(damaged(gzip.decompress(original), 16))))
    else:
        path.write_bytes(data.draw(damaged(original, min(len(original), 1400))))
    with memory_limit(512 * MIB):
        check_reader(path)


_ORIGINALS: dict[Path, bytes] = {}
