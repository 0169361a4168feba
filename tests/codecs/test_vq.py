"""The vq container: what is written is read, bit for bit; damage is refused; cells cost what they should."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenes
import torch
from damage import check_reader, damaged
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs import decode, encode
from splat.codecs.bounded import allowance
from splat.codecs.format import differences
from splat.codecs.quantize.guided import UNIT
from splat.codecs.vq import container
from splat.codecs.vq.basis import Basis
from splat.codecs.vq.cells import decode_cells, encode_cells, pack, unpack
from splat.codecs.vq.quantizer import VqOptions, quantize
from splat.codecs.vq.scene import Book, Quantized, cells_of, centres, widths
from splat.codecs.vq.turns import (
    LARGEST_SWING,
    decode_rotations,
    direction_vectors,
    directions,
    directions_from_parts,
    directions_to_parts,
    encode_rotations,
    labels_of,
    levels,
    numbers_of,
    turns,
    turns_from_parts,
    turns_to_parts,
)
from splat.core import DataError, Gaussians
from splat.core.rotations import quat_to_matrix
from splat.core.sh import basis as basis_functions

HEAD = len(container.MAGIC) + 1 + 4


def scene(count: int = 300, degree: int = 3, seed: int = 0) -> Gaussians:
    whole = scenes.mixed(count, seed).to(torch.float32)
    whole.sh = whole.sh[:, : (degree + 1) ** 2].contiguous()
    return whole


def reset(data: bytes) -> bytes:
    """The file with the checksum that fits its body."""
    return data[: HEAD - 4] + struct.pack("<I", zlib.crc32(data[HEAD:])) + data[HEAD:]


class TestCells:
    @pytest.mark.parametrize("count", [0, 1, 2, 500])
    @pytest.mark.parametrize("depth", [1, 5, 20])
    def test_come_back_in_the_order_that_was_said(self, count: int, depth: int) -> None:
        cells = np.random.default_rng(count).integers(0, 1 << depth, (count, 3))
        data, order = encode_cells(cells, depth)
        assert np.array_equal(decode_cells(data, depth, count), cells[order])

    def test_equal_cells(self) -> None:
        cells = np.full((1000, 3), 77)
        data, _ = encode_cells(cells, 10)
        assert np.array_equal(decode_cells(data, 10, 1000), cells)

    def test_cost_no_more_than_evenly_spread_ones(self) -> None:
        """n cells of 2^(3 d) in no order have 3 d - log2(n!) / n bits each, where all sets are alike. Parts of 8
        points and more are coded as if every share were alike, which takes about half a bit a point more.
        On a sphere they lie closer."""
        n, depth = 20_000, 10
        draw = np.random.default_rng(0)
        even = draw.integers(0, 1 << depth, (n, 3))
        bound = 3 * depth - math.lgamma(n + 1) / math.log(2) / n
        spread = 8 * len(encode_cells(even, depth)[0]) / n
        assert bound < spread < bound + 0.6
        ball = draw.normal(size=(n, 3))
        ball = ball / np.linalg.norm(ball, axis=1)[:, None]
        on_sphere = ((ball + 1) / 2 * (1 << depth)).clip(0, (1 << depth) - 1).astype(np.int64)
        assert 8 * len(encode_cells(on_sphere, depth)[0]) / n < bound - 2

    @given(st.binary(max_size=400), st.integers(1, 20), st.integers(0, 50))
    @pytest.mark.fuzz
    def test_any_bytes(self, data: bytes, depth: int, count: int) -> None:
        try:
            cells = decode_cells(data, depth, count)
        except ValueError:
            return
        assert cells.shape == (count, 3)
        assert count == 0 or 0 <= cells.min() <= cells.max() < 1 << depth

    def test_packed_bits(self) -> None:
        widths = np.array([0, 3, 60, 1, 0, 7])
        values = np.array([0, 5, (1 << 60) - 3, 1, 0, 100])
        assert np.array_equal(unpack(pack(values, widths), widths), values)
        with pytest.raises(ValueError, match="cut short"):
            unpack(pack(values, widths)[:-1], widths)

    def test_centres_are_the_middles_of_their_cells(self) -> None:
        means = scene().means
        origin, depth = means.double().amin(0), torch.randint(6, 14, (300,))
        size = float((means.amax(0) - means.amin(0)).max()) + 1e-3
        cells = cells_of(means, depth, origin, size)
        again = centres(cells, depth, origin, size)
        half = size / 2 ** (depth.double() + 1)
        # Rounding to float32 adds half a unit in the last place.
        assert bool(((again - means).abs().amax(1) <= half + means.abs().amax() * 2**-23).all())
        assert cells_of(again, depth, origin, size).equal(cells)


class TestRotations:
    @staticmethod
    def some(n: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(0)
        sizes = torch.tensor([19, 15, 3])
        chosen = (torch.rand(n, 3, generator=draw) * sizes).long()
        return torch.randn(n, 4, generator=draw), chosen

    def test_stay_where_they_were_put(self) -> None:
        quats, chosen = self.some()
        labels = encode_rotations(quats, chosen)
        count = directions(chosen[:, 0]) * turns(chosen[:, 1])
        assert bool(((labels >= 0) & (labels < count)).all())
        assert encode_rotations(decode_rotations(labels, chosen), chosen).equal(labels)

    def test_lie_within_their_cells(self) -> None:
        """The direction: half a ring away along its meridian, and on the smallest ring, of 3 directions, a sixth of
        a circle that is a ring's width from the pole. The turn: half of its own step."""
        quats, chosen = self.some()
        again = decode_rotations(encode_rotations(quats, chosen), chosen)
        one, two = quat_to_matrix(torch.nn.functional.normalize(quats, dim=1)), quat_to_matrix(again)
        row, axis = torch.arange(len(quats)), chosen[:, 2]
        off = (one[row, :, axis] * two[row, :, axis]).sum(1).abs().clamp(max=1).arccos()
        told = chosen[:, 0] > 0
        width = math.pi / 2 / torch.exp2((chosen[:, 0] - 1) / 2).round()
        assert bool((off < math.hypot(0.5, math.pi / 3) * width + 1e-3)[told].all())
        fine = chosen[:, 0] == 18
        beside = (axis + 1) % 3
        off = (one[row, :, beside] * two[row, :, beside]).sum(1).abs().clamp(max=1).arccos()
        # A direction that is off by 0.003 turns the axes beside it by as much.
        assert bool((off < math.pi / 2 / turns(chosen[:, 1]) + 0.006)[fine].all())

    def test_levels_have_the_widths_that_were_asked_for(self) -> None:
        """To a quarter of an octave; 10 turns and more are rounded to whole ones, by a twentieth at most."""
        steps = torch.logspace(-1.6, -0.5, 20)
        swing, twist = levels(steps, steps)
        assert float((math.pi / 2 / torch.exp2((swing - 1) / 2) / steps).log2().abs().max()) <= 0.251
        assert float((math.pi / turns(twist) / steps).log2().abs().max()) <= 0.251 + math.log2(1.05)

    def test_parts_come_back_and_damage_is_refused(self) -> None:
        quats, chosen = self.some(400)
        direction, turn = numbers_of(encode_rotations(quats, chosen), chosen)
        assert labels_of(direction, turn, chosen).equal(encode_rotations(quats, chosen))
        cells = np.random.default_rng(0).integers(0, 1 << 10, (400, 3))
        parts = turns_to_parts(turn, chosen, cells)
        assert turns_from_parts(parts, chosen, cells).equal(turn)
        full = next(i for i, part in enumerate(parts) if len(part) > 4)
        for broken in (b"", b"\7" + parts[full][1:], parts[full][:3]):
            with pytest.raises(ValueError, match=r"damaged|cut short"):
                turns_from_parts([*parts[:full], broken, *parts[full + 1 :]], chosen, cells)
        assert directions_from_parts(directions_to_parts(direction, chosen, cells), chosen, cells).equal(
            direction
        )
        with pytest.raises(ValueError, match="no rotations"):
            directions_from_parts([b"\0"] * (LARGEST_SWING + 1), chosen[:0], cells[:0])

    def test_directions_round_alike_on_every_machine(self) -> None:
        """Sines and cosines differ by some 1e-16 between machines, 1e-11 of what is rounded: none is so close to a
        half that it would make another integer."""
        for level in range(1, LARGEST_SWING + 1):
            scaled = direction_vectors(level) * UNIT
            assert float((scaled - scaled.floor() - 0.5).abs().min()) > 1e-9


class TestBasis:
    def test_all_components_give_the_harmonics_back(self) -> None:
        """Up to degree 2 none is left out; in between float32's rounding and the ridge's inverse."""
        sh = scene(degree=2).sh
        basis = Basis.of(sh)
        again = sum(basis.harmonics(basis.components(sh, part), part) for part in basis.widths())
        again[:, 0] += basis.color(sh)
        torch.testing.assert_close(again, sh, rtol=0, atol=1e-4 * float(sh.abs().max()))

    def test_leaves_out_what_is_seen_least(self) -> None:
        """Harmonics seen from directions in a narrow cone differ little: what 9 of 15 components lose there is a small
        part of what they lose elsewhere, and of what the components of all directions lose."""
        sh = torch.randn(200, 16, 3, generator=torch.Generator().manual_seed(0))
        cone = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * 0.2 + torch.tensor(
            [0, 0, 1.0]
        )
        seen = basis_functions(torch.nn.functional.normalize(cone, dim=1), 3)
        metric = seen.T @ seen
        losses = []
        for basis in (Basis.of(sh, None, metric), Basis.of(sh)):
            again = sum(basis.harmonics(basis.components(sh, part), part) for part in basis.widths())
            again[:, 0] += basis.color(sh)
            losses.append(float(torch.einsum("dk,nkc->dnc", seen, again - sh).square().mean()))
        assert losses[0] < 0.05 * losses[1]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_read_is_what_was_quantized(tmp_path: Path, degree: int) -> None:
    whole = scene(degree=degree)
    whole.antialiased = degree == 1
    metadata = {"generator": "test", "comments": ["one"], "offset": [1.0, -2.5, 1e6], "up_axis": "-y"}
    path = tmp_path / "a.vq"
    options = VqOptions(words=64)
    assert encode(whole, path, metadata, options) == []
    found, about = decode(path)
    expected = quantize(whole, options).gaussians()
    order = torch.from_numpy(container.to_bytes(quantize(whole, options), {})[1])
    assert max(differences(expected.select(order), found).values()) == 0
    assert found.antialiased == whole.antialiased
    assert about == {"format": ".vq", "version": "3", "notes": [], **metadata}
    limits = container.max_error(whole, options)
    assert all(value <= limits[name] for name, value in differences(whole.select(order), found).items())
    # Cells are a quarter of the mean scale of the codeword: half a cell, and a little of the codeword's own.
    assert limits["means"] < float(whole.log_scales.mean(1).exp().amax()) / 4


def test_a_scene_of_codewords_keeps_every_bit(tmp_path: Path) -> None:
    """As the vq strategy bakes it: with the codebooks at hand nothing changes but the order."""
    first = quantize(scene(), VqOptions(words=50))
    baked = first.gaussians()
    names = ("origin", "size", "depths", "turns", "books", "basis")
    learned = {name: getattr(first, name) for name in names}
    path = tmp_path / "a.vq"
    encode(baked, path, {"codebooks": {"vq": learned}})
    found, about = decode(path)
    assert about["version"] == "4"
    order = torch.from_numpy(container.to_bytes(quantize(baked, VqOptions(), learned), {})[1])
    assert max(differences(baked.select(order), found).values()) == 0
    # Moved since, the centres get a new cube, of cells no larger.
    moved = baked.clone()
    moved.means += torch.tensor([100.0, 0, 0])
    encode(moved, path, {"codebooks": {"vq": learned}})
    found, _ = decode(path)
    cell = first.size / 2 ** float(first.depths.min())
    assert float(found.means[:, 0].min()) > float(moved.means[:, 0].min()) - cell


def test_words_that_have_met_keep_their_cells_and_turns() -> None:
    """Codewords move after the last assignment; two of the same bytes may have other depths and levels."""
    first = quantize(scene(), VqOptions(words=50))
    book = first.books["scale"]
    words = book.words.clone()
    words[1::2] = words[: len(words) - len(words) % 2 : 2]
    learned = {
        "origin": first.origin,
        "size": first.size,
        "depths": first.depths + torch.arange(len(words)) % 2,
        "turns": first.turns + (torch.arange(len(words)) % 2)[:, None] * torch.tensor([1, 1, 0]),
        "books": {**first.books, "scale": replace(book, words=words)},
        "basis": first.basis,
    }
    met = replace(first, **{name: learned[name] for name in ("depths", "turns", "books")})
    fine = met.depths[met.labels["scale"]]
    met.cells = cells_of(scene().means, fine, met.origin, met.size)
    met.labels["rotation"] = encode_rotations(scene().quats, met.turns[met.labels["scale"]])
    baked = met.gaussians()
    assert len(torch.unique(words, dim=0)) < len(words)
    again = quantize(baked, VqOptions(), learned).gaussians()
    for name, values in baked.named_tensors():
        assert torch.equal(getattr(again, name), values), name


def test_equal_scenes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.vq", "b.vq"):
        encode(scene(), tmp_path / name, {"generator": "test"})
    assert (tmp_path / "a.vq").read_bytes() == (tmp_path / "b.vq").read_bytes()


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_a_scene(tmp_path: Path, count: int) -> None:
    encode(scene(count), tmp_path / "a.vq")
    found, _ = decode(tmp_path / "a.vq")
    assert len(found) == count
    assert found.sh_degree == 3


def test_equal_gaussians_are_padded_until_they_may_be_read() -> None:
    """A million of them would fit into some hundred bytes, and take a reader 236 MB."""
    n = 1_000_000
    books = {
        name: Book(torch.zeros(1, width, dtype=torch.uint8), torch.zeros(width), torch.zeros(width))
        for name, width in widths(3).items()
    }
    labels = {name: torch.zeros(n, dtype=torch.int64) for name in (*books, "rotation")}
    cells, depths = torch.zeros(n, 3, dtype=torch.int64), torch.tensor([2])
    turns, basis = torch.zeros(1, 3, dtype=torch.int64), Basis.of(torch.zeros(1, 16, 3))
    equal = Quantized(torch.zeros(3, dtype=torch.float64), 1.0, depths, turns, cells, labels, books, basis)
    data, _ = container.to_bytes(equal, {}, container.QUICK)
    assert 4 * 59 * n <= allowance(len(data) - HEAD) < 4 * 59 * n + 2 * allowance(0)
    assert len(container.from_bytes(data)[0]) == n
    with pytest.raises(ValueError, match="do not fit into"):
        container.from_bytes(reset(data[:2000]))


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_both_versions_hold_the_same(degree: int) -> None:
    whole = quantize(scene(degree=degree), VqOptions(words=50))
    files = [container.to_bytes(whole, {}, version)[0] for version in container.VERSIONS]
    assert [data[len(container.MAGIC)] for data in files] == [3, 4]
    one, two = (container.from_bytes(data)[0] for data in files)
    assert max(differences(one.gaussians(), two.gaussians()).values()) == 0


def test_a_file_of_an_earlier_writer_is_read() -> None:
    """Made by the first writer of version 3 of scene(40, degree=1): the integers that its reader found in it."""
    path = Path(__file__).with_name("version3.vq")
    found, _ = container.from_bytes(path.read_bytes())
    parts = [found.labels[name].numpy() for name in sorted(found.labels)]
    parts += [found.cells.numpy().ravel(), *(book.words.numpy().ravel() for book in found.books.values())]
    assert zlib.crc32(np.concatenate(parts).astype("<i4").tobytes()) == 0x2FD13CA8
    assert decode(path)[1]["offset"] == [1.0, 2.0, 3.0]


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vq"
    encode(scene(50), path, None, VqOptions(words=16))
    whole = path.read_bytes()
    after = HEAD + 4
    for data, message in (
        (whole[:40], "checksum"),
        (whole[:9], "not a vq file"),
        (whole[:-1], "checksum"),
        (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "checksum"),
        (whole[:7] + b"\2" + whole[8:], "version 2 of the format; this reader knows 3 and 4"),
        (reset(whole[:-1]), "cut short"),
        (reset(whole + b"\0\0\1"), "3 bytes follow the end"),
        (reset(whole[:after] + b"\7" + whole[after + 1 :]), "out of range"),
        (reset(whole[: after + 3] + b"\xff" * 4 + whole[after + 7 :]), "4294967295 Gaussians do not fit"),
        (reset(whole[: after + 7] + struct.pack("<d", math.nan) + whole[after + 15 :]), "out of range"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError) as error:
            decode(path)
        first, *rest = str(error.value).splitlines()
        assert first.startswith(str(path))
        assert message in first
        assert not rest


@pytest.fixture(scope="module", params=container.VERSIONS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vq") / "a.vq"
    whole = quantize(scene(40, degree=1), VqOptions(words=8))
    path.write_bytes(container.to_bytes(whole, {"offset": [1.0, 2.0, 3.0]}, request.param)[0])
    return path


@pytest.mark.fuzz
@given(data=st.data())
def test_damaged_files(small: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """With the checksum as it was, and with one that fits the damage."""
    original = small.read_bytes()
    broken = data.draw(damaged(original, 200))
    if len(broken) > HEAD and data.draw(st.booleans()):
        broken = reset(broken)
    path = small.with_name("broken.vq")
    path.write_bytes(broken)
    check_reader(path)
