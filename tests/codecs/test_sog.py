"""SOG: what its bytes say, round trips within the bounds, real files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
import torch
from PIL import Image

from splat.codecs import decode, encode, inspect
from splat.codecs.format import differences
from splat.codecs.quantize import morton_codes
from splat.codecs.sog import FORMAT, SogOptions, order
from splat.core import Gaussians, UsageError

IMAGES = ["means_l.webp", "means_u.webp", "scales.webp", "quats.webp", "sh0.webp"]


def scene(count: int = 50, degree: int = 3, **changes: Any) -> Gaussians:
    whole = scenes.mixed(count).to(torch.float32)
    return replace(whole, sh=whole.sh[:, : (degree + 1) ** 2].contiguous(), **changes)


def webp(texels: list[Any], width: int) -> bytes:
    rows = np.array(texels, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows.reshape(-1, width, rows.shape[-1])).save(buffer, "WEBP", lossless=True, exact=True)
    return buffer.getvalue()


def write_by_hand(folder: Path, meta: dict[str, Any], images: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in images.items():
        (folder / name).write_bytes(content)
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def by_hand(version: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Three Gaussians in four texels."""
    images = {
        "l.webp": webp([[255, 0, 0], [0, 0, 0], [255, 255, 255], [9, 9, 9]], 2),
        "u.webp": webp([[255, 0, 128], [0, 0, 0], [255, 255, 255], [9, 9, 9]], 2),
        "s.webp": webp([[0, 1, 2], [2, 2, 2], [0, 0, 1], [9, 9, 9]], 2),
        "q.webp": webp([[0, 128, 255, 255], [127, 127, 127, 252], [255, 128, 127, 253], [9, 9, 9, 9]], 2),
        "c.webp": webp([[0, 1, 2, 255], [2, 1, 0, 51], [1, 1, 1, 0], [9, 9, 9, 9]], 2),
        "p.webp": webp([[[i % 3, 2, 1] for i in range(64 * 3)]], 192),
        "n.webp": webp([[0, 0, 0], [2, 0, 0], [1, 0, 0], [255, 255, 9]], 2),
    }
    meta: dict[str, Any] = {
        "means": {"mins": [-1.0, 0.0, 2.0], "maxs": [1.0, 0.0, 3.0], "files": ["l.webp", "u.webp"]},
        "scales": {"files": ["s.webp"]},
        "quats": {"files": ["q.webp"]},
        "sh0": {"files": ["c.webp"]},
        "shN": {"files": ["p.webp", "n.webp"]},
    }
    if version == 2:
        meta |= {"version": 2, "count": 3, "antialias": True}
        meta["scales"]["codebook"] = [-1.0, -2.0, -3.5]
        meta["sh0"]["codebook"] = [0.5, 0.25, -1]
        meta["shN"] |= {"codebook": [-0.5, 0.125, 0.75], "count": 3, "bands": 1}
    else:
        meta["means"]["shape"] = [3, 3]
        meta["scales"] |= {"mins": [-255.0, 0.0, -10.0], "maxs": [0.0, 255.0, -10.0]}
        meta["sh0"] |= {"mins": [0, 0, 0, -5.1], "maxs": [255, 510, 25.5, 5.1]}
        meta["shN"] |= {"mins": -1.275, "maxs": 1.275}
    return meta, images


def test_values_are_what_the_bytes_of_version_2_say(tmp_path: Path) -> None:
    found, metadata = decode(write_by_hand(tmp_path / "scene", *by_hand(2)))
    assert metadata["version"] == "2"
    assert found.antialiased
    e = np.exp(1) - 1
    expected = [[e, 0, np.exp(2 + 0x8000 / 65535) - 1], [-e, 0, np.exp(2) - 1], [e, 0, np.exp(3) - 1]]
    np.testing.assert_allclose(found.means, expected, rtol=1e-6)
    assert found.log_scales.tolist() == [[-1, -2, -3.5], [-3.5, -3.5, -3.5], [-1, -1, -2]]
    high, mid = 2**-0.5, 0.5 / 255 * 2**0.5
    # The stored components are those of wxyz but for the largest: 255 leaves out z, 252 w, 253 x.
    rest = np.sqrt(max(0, 1 - 2 * high**2 - mid**2))
    np.testing.assert_allclose(found.quats[0], [-high, mid, high, rest], atol=1e-6)
    np.testing.assert_allclose(found.quats[1], [np.sqrt(1 - 3 * mid**2), -mid, -mid, -mid], atol=1e-6)
    np.testing.assert_allclose(found.quats[2], [high, np.sqrt(0.5 - 2 * mid**2), mid, -mid], atol=1e-6)
    assert found.sh[:, 0].tolist() == [[0.5, 0.25, -1], [-1, 0.25, 0.5], [0.25, 0.25, 0.25]]
    np.testing.assert_allclose(found.opacities(), [1, 0.2, 0], atol=2e-7)
    # Entry 0 begins at texel 0, entry 2 at texel 6: every coefficient's red cycles through the codebook.
    assert found.sh[0, 1:].tolist() == [[-0.5, 0.75, 0.125], [0.125, 0.75, 0.125], [0.75, 0.75, 0.125]]
    assert found.sh[1].equal(torch.cat([found.sh[1, :1], found.sh[0, 1:]]))


def test_values_are_what_the_bytes_of_version_1_say(tmp_path: Path) -> None:
    found, metadata = decode(write_by_hand(tmp_path / "scene", *by_hand(1)))
    assert metadata["version"] == "1"
    assert not found.antialiased
    np.testing.assert_allclose(found.log_scales, [[-255, 1, -10], [-253, 2, -10], [-255, 0, -10]])
    np.testing.assert_allclose(found.sh[:, 0], [[0, 2, 0.2], [2, 2, 0], [1, 2, 0.1]], atol=1e-6)
    np.testing.assert_allclose(found.logit_opacities, [5.1, -5.1 + 10.2 * 0.2, -5.1], rtol=1e-6)
    np.testing.assert_allclose(found.sh[0, 1:, 0], [-1.275, -1.265, -1.255], rtol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_round_trips_stay_within_the_bounds(tmp_path: Path, degree: int, count: int) -> None:
    original = scene(count, degree)
    options = SogOptions(palette=min(count, 64))
    assert encode(original, tmp_path / "a.sog", options=options) is not None
    found, _ = decode(tmp_path / "a.sog")
    assert found.sh_degree == degree
    bound = FORMAT.max_error(original, options)
    difference = differences(original.select(order(original, {}, options)), found)
    assert set(bound) == set(difference)
    assert all(difference[name] <= bound[name] for name in bound), (difference, bound)


def test_codebooks_that_suffice_lose_nothing(tmp_path: Path) -> None:
    original = scene(40, 2)
    original.log_scales = original.log_scales.round(decimals=0)
    original.sh = (4 * original.sh).round() / 4
    encode(original, tmp_path / "a.sog")
    found, _ = decode(tmp_path / "a.sog")
    original = original.select(order(original, {}, SogOptions()))
    assert found.log_scales.equal(original.log_scales)
    assert found.sh.equal(original.sh)


def test_far_rotated_and_degenerate_scenes(tmp_path: Path) -> None:
    original = scene(30, 0, antialiased=True)
    original.means = original.means * 1000 + torch.tensor([5e5, 0, -7.0])
    original.means[:, 1] = 2.5
    original.quats[:4] = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, -3], [0.5, 0.5, 0.5, 0.5], [1, -1, 0, 0]])
    original.logit_opacities[:2] = torch.tensor([-40.0, 40.0])
    metadata = {"offset": [1e6, 2.0, 0.1], "up_axis": "-y", "generator": "splat test"}
    notes = encode(original, tmp_path / "a.sog", metadata)
    assert not any("offset" in note or "up" in note or "antialias" in note for note in notes)
    found, said = decode(tmp_path / "a.sog")
    assert {name: said[name] for name in metadata} == metadata
    assert found.antialiased
    assert found.means[:, 1].eq(2.5).all()
    rows = order(original, {}, SogOptions())
    bound = FORMAT.max_error(original, SogOptions())
    zero = (rows == 0).nonzero().item()
    assert found.quats[zero].tolist()[0] > 0.99
    kept = torch.arange(30) != zero
    difference = differences(original.select(rows).select(kept), found.select(kept))
    assert all(difference[name] <= bound[name] for name in bound), (difference, bound)


def test_equal_scenes_give_equal_bytes_whatever_the_threads(tmp_path: Path) -> None:
    original = scene(2000)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            encode(original, tmp_path / f"{count}.sog", options={"palette": 1200})
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "1.sog").read_bytes() == (tmp_path / "2.sog").read_bytes()


def test_the_archive_and_the_folder_hold_the_same(tmp_path: Path) -> None:
    original = scene(70)
    encode(original, tmp_path / "a.sog")
    (tmp_path / "folder").mkdir()
    encode(original, tmp_path / "folder" / "meta.json")
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        assert sorted(archive.namelist()) == sorted(
            [*IMAGES, "meta.json", "shN_centroids.webp", "shN_labels.webp"]
        )
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "folder" / name).read_bytes()
    for path in (tmp_path / "folder", tmp_path / "folder" / "meta.json"):
        assert decode(path)[0].means.equal(decode(tmp_path / "a.sog")[0].means)
    assert inspect(tmp_path / "folder")["format"] == "SOG"


def test_cells_and_labels_stand_in_order(tmp_path: Path) -> None:
    """Along the curve through the cells of the upper bytes, each of them once, and by label in each."""
    original = scene(3000, 1)
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(-1, 2, (3000, 3), generator=generator).float()
    original.means = places + 0.002 * torch.rand(3000, 3, generator=generator)
    encode(original, tmp_path / "a.sog", options={"palette": 16})
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        upper, labels = (
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")).reshape(-1, 3)[:3000]
            for name in ("means_u.webp", "shN_labels.webp")
        )
    cells = morton_codes(torch.from_numpy(upper.astype(np.int64))).numpy()
    steps = np.diff(cells)
    assert 27 <= len(np.unique(cells)) < 300
    assert (steps >= 0).all()
    # Labels are named anew in the order of their first use afterwards: each is met in one run of a cell.
    for cell in np.unique(cells):
        here = labels[cells == cell, 0]
        assert np.count_nonzero(np.diff(here)) == len(np.unique(here)) - 1
    assert np.unique(labels[:, 0], return_index=True)[1].tolist() == sorted(
        np.unique(labels[:, 0], return_index=True)[1]
    )


def test_an_empty_scene(tmp_path: Path) -> None:
    encode(scene(0, 1), tmp_path / "a.sog")
    found, _ = decode(tmp_path / "a.sog")
    assert len(found) == 0
    assert found.sh_degree == 1


def test_what_training_learned_is_written_as_it_is(tmp_path: Path) -> None:
    original = scene(60, 1)
    torch.manual_seed(0)
    codebook = torch.tensor([-0.5, 0.0, 0.125, 1.0])
    palette = codebook[torch.randint(0, 4, (70, 9))]
    labels = torch.randint(0, 70, (60,))
    scales = torch.linspace(-5, 1, 200)
    colors = torch.linspace(-2, 2, 17)
    original.sh[:, 1:] = palette[labels].reshape(60, 3, 3)
    original.log_scales = scales[torch.randint(0, 200, (60, 3))]
    original.sh[:, 0] = colors[torch.randint(0, 17, (60, 3))]
    learned = {"scales": scales, "sh0": colors, "shn_codebook": codebook}
    learned |= {"shn_centroids": palette, "shn_labels": labels}
    encode(original, tmp_path / "a.sog", {"codebooks": {"sog": learned}})
    found, _ = decode(tmp_path / "a.sog")
    rows = order(original, {"codebooks": {"sog": learned}}, SogOptions())
    assert found.sh.equal(original.sh[rows])
    assert found.log_scales.equal(original.log_scales[rows])
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        meta = json.loads(archive.read("meta.json"))
        image = np.asarray(Image.open(io.BytesIO(archive.read("shN_labels.webp"))).convert("RGB"))
    assert meta["shN"]["count"] == 70
    assert np.float32(meta["scales"]["codebook"])[:200].tolist() == scales.tolist()
    # The palette is the same, in the order of its first uses.
    written = image.reshape(-1, 3)[:60, 0].astype(int)
    assert written[0] == 0
    assert len({(a, b) for a, b in zip(written, labels[rows].tolist(), strict=True)}) == len(
        set(labels.tolist())
    )
    for broken, message in (
        ({"scales": torch.zeros(257)}, "scales: expected"),
        ({**learned, "shn_labels": labels[:5]}, "shn_labels: expected"),
        ({**learned, "shn_labels": labels + 70}, "shn_labels: expected"),
        ({**learned, "shn_centroids": palette[:, :8]}, "shn_centroids: expected"),
        ({"shn_labels": labels}, "belong together"),
    ):
        with pytest.raises(ValueError, match=message):
            encode(original, tmp_path / "a.sog", {"codebooks": {"sog": broken}})


def test_options(tmp_path: Path) -> None:
    original = scene(3000, 3)
    sizes = []
    for palette in (16, 1024):
        encode(original, tmp_path / "a.sog", options={"palette": palette})
        sizes.append((tmp_path / "a.sog").stat().st_size)
        with zipfile.ZipFile(tmp_path / "a.sog") as archive:
            assert json.loads(archive.read("meta.json"))["shN"]["count"] == palette
    assert sizes[0] < sizes[1]
    for bad in ({"palette": 0}, {"palette": 65537}, {"iterations": 0}):
        with pytest.raises(UsageError):
            encode(original, tmp_path / "a.sog", options=bad)


@pytest.mark.parametrize(
    ("name", "count", "version", "degree"),
    [
        ("sog/angel.sog", 71359, "2", 0),
        ("sog/angel-kneeling.sog", 83547, "2", 0),
        ("sog/angel-with-candlestick.sog", 80821, "2", 0),
        ("sog/massa.sog", 58649, "2", 0),
        ("sog/playcanvas-logo", 307128, "1", 0),
        ("sog_streamed/playbot", 8406, "2", 2),
        ("sog_streamed/playbot/5_0/meta.json", 3000, "2", 2),
    ],
)
def test_real_files(
    shared_data: Callable[[str], Path], name: str, count: int, version: str, degree: int
) -> None:
    path = shared_data(f"splats/{name}")
    found, metadata = decode(path)
    assert (len(found), metadata["version"], found.sh_degree) == (count, version, degree)
    facts = inspect(path)
    # An object of about two units, with a few splats that reach farther.
    assert facts["bounds"]["core"]["max"][1] - facts["bounds"]["core"]["min"][1] < 4
    assert 1e-5 < facts["scale"]["quantiles"]["0.5"] < 0.1
    assert not any("NaN" in line for line in facts["suspicious"])


def test_a_real_file_is_the_scene_that_it_was_made_from(shared_data: Callable[[str], Path]) -> None:
    original, _ = decode(shared_data("splats/ply/kacytran_inria_it7000.ply"))
    found, _ = decode(shared_data("splats/converted/kacytran_sh3.sog"))

    def features(g: Gaussians) -> torch.Tensor:
        """Values in which a Gaussian and its quantized copy differ by about one at most."""
        q = torch.nn.functional.normalize(g.quats, dim=1)
        outer = (q[:, :, None] * q[:, None]).flatten(1)
        scales, opacities = g.log_scales / 0.05, g.opacities()[:, None] / 0.004
        return torch.cat([g.means / 0.2, outer / 0.02, scales, opacities], 1)

    apart = torch.cdist(features(original), features(found))
    rows = apart.argmin(1)
    # The writer truncates: its error is up to a whole step where ours is half of one.
    bound = FORMAT.max_error(original, SogOptions(palette=16))
    for there, back in (
        (original, found.select(rows)),
        (original.select(apart.argmin(0)), found),
    ):
        difference = differences(there, back)
        assert difference["means"] <= 2 * bound["means"]
        assert difference["quats"] <= 2 * bound["quats"] + 1e-4
        assert difference["opacities"] <= 2 * bound["opacities"]
        assert difference["log_scales"] < 0.1
        assert difference["shN"] < 0.05
