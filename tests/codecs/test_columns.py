"""Rows of files to columns of scenes: native code against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from splat.codecs import columns

# More than a piece of a file, more than a thread's share, and no multiple of either.
_COUNT = 3001


def _random_rows(count: int, dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, dtype.itemsize), np.uint8)


def test_every_half_float_is_read_as_numpy_reads_it() -> None:
    halves = np.arange(1 << 16, dtype="<u2")
    rows = np.zeros((len(halves), 3), np.uint8)
    rows[:, 1:] = halves.view(np.uint8).reshape(-1, 2)  # not aligned
    out = columns.empty(len(halves), 1)
    columns.gather(rows, "<f2", [1], out)
    assert np.array_equal(out.numpy()[:, 0], halves.view("<f2").astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(out.numpy()[:, 0]), np.signbit(halves.view("<f2")))


@pytest.mark.parametrize("kind", ["<f4", "<f2", "<u2"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_gather_takes_numbers_from_rows(kind: str, width: int) -> None:
    dtype = np.dtype([("a", "u1"), ("values", kind, 8), ("b", "u1")])
    rows = _random_rows(_COUNT, dtype)
    source = [5, 0, 7, 2, 2, 1, 6][:width]
    size = np.dtype(kind).itemsize
    whole = torch.full((_COUNT, 9), 7.0)
    columns.gather(rows, kind, [1 + size * k for k in source], whole[:, 1 : 1 + width])
    with np.errstate(invalid="ignore"):
        expected = rows.view(dtype)[:, 0]["values"][:, source].astype(np.float32)
    assert np.array_equal(whole[:, 1 : 1 + width].numpy(), expected, equal_nan=True)
    assert (whole[:, :1] == 7).all()
    assert (whole[:, 1 + width :] == 7).all()


def test_files_are_written_and_read_in_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    wide, thin = torch.randn(_COUNT, 50), torch.randn(_COUNT, 1)
    parts = [([4 * k for k in range(50)], wide), ([208], thin)]
    with open(path, "wb") as file:
        file.write(b"header")
        columns.write_columns(file, 216, parts)
        file.write(b"tail")
    raw = np.fromfile(path, np.uint8)
    assert raw[:6].tobytes() == b"header"
    assert raw[-4:].tobytes() == b"tail"
    rows = raw[6:-4].reshape(_COUNT, 216).view("<f4")
    assert np.array_equal(rows[:, :50], wide.numpy())
    assert np.array_equal(rows[:, 52:53], thin.numpy())
    assert not rows[:, 50:52].any()
    assert not rows[:, 53].any()
    with open(path, "rb") as file:
        found = [(offsets, columns.empty(*values.shape)) for offsets, values in parts]
        columns.read_columns(file, 6, 216, found)
        assert all(torch.equal(values, old) for (_, values), (_, old) in zip(found, parts, strict=True))
        assert np.array_equal(columns.read_bytes(file), raw)
        assert np.array_equal(columns.read_bytes(file, 5, 1000), raw[5:1005])
    assert np.array_equal(columns.load(path), raw)


def test_files_that_end_early_or_refuse_are_errors_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(bytes(12 * _COUNT - 1))
    values = columns.empty(_COUNT, 3)
    with open(path, "rb") as file:
        with pytest.raises(OSError, match="shorter"):
            columns.read_columns(file, 0, 12, [([0, 4, 8], values)])
        with pytest.raises(OSError, match="shorter"):
            columns.read_bytes(file, 0, 12 * _COUNT)
        file.flush = lambda: None  # type: ignore[method-assign]
        with pytest.raises(OSError, match="Bad file descriptor"):
            columns.write_columns(file, 12, [([0, 4, 8], values)])
    with open(path, "wb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        columns.read_columns(file, 0, 12, [([0, 4, 8], values)])


def test_places_outside_a_row_are_refused(tmp_path: Path) -> None:
    rows, out = np.zeros((4, 8), np.uint8), torch.zeros(4, 1)
    for offset in (-1, 5):
        with pytest.raises(ValueError, match="in rows of 8 bytes"):
            columns.gather(rows, "<f4", [offset], out)
        with open(tmp_path / "rows", "wb+") as file, pytest.raises(ValueError, match="in rows of 8 bytes"):
            columns.write_columns(file, 8, [([offset], out)])
    with pytest.raises(ValueError, match="expected"):
        columns.gather(rows, "<f4", [0], torch.zeros(3, 1))


def test_bytes_are_looked_up_in_rows_that_lie_apart() -> None:
    rows = _random_rows(_COUNT, np.dtype("V9"))
    table = np.random.default_rng(2).standard_normal(256).astype(np.float32)
    out = torch.zeros(_COUNT, 3)
    columns.expand_bytes(rows[:, 4:7], table, out, [2, 0, 1])
    assert np.array_equal(out.numpy()[:, [2, 0, 1]], table[rows[:, 4:7]])


def test_parts_are_interleaved_with_their_signs(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).standard_normal((_COUNT, 8)).astype(np.float32)
    parts = [rows[:, 0:3], rows[:, 5:8].copy()]
    found = columns.interleave(parts, [-1, 1])
    assert np.array_equal(found.numpy(), np.stack([-parts[0], parts[1]], 1))
    path = tmp_path / "parts"
    path.write_bytes(b"?" + parts[1].tobytes() + b"??" + parts[0].tobytes())
    size = 12 * _COUNT
    with open(path, "rb") as file:
        assert torch.equal(columns.read_interleaved(file, [3 + size, 1], [-1, 1], _COUNT), found)
        with pytest.raises(OSError, match="shorter"):
            columns.read_interleaved(file, [4 + size, 1], [-1, 1], _COUNT)
    with pytest.raises(ValueError, match="differ"):
        columns.interleave([parts[0], parts[1][1:]], [1, 1])


@pytest.mark.parametrize(("shift", "bits"), [(0, (11, 10, 11)), (8, (8, 8, 8))])
@pytest.mark.parametrize("chunked", [False, True])
def test_fields_lie_between_the_bounds_of_their_chunk(
    shift: int, bits: tuple[int, int, int], chunked: bool
) -> None:
    random = np.random.default_rng(4)
    packed = random.integers(0, 1 << 32, (_COUNT, 2), np.uint32)[:, 1]
    runs = -(-_COUNT // 256) if chunked else 1
    low, high = random.standard_normal((2, runs, 3)).astype(np.float32)
    out = torch.zeros(_COUNT, 4)
    columns.unpack_fields(packed, shift, bits, (low, high), out[:, :3])
    levels = np.stack([packed >> (shift + sum(bits[c + 1 :])) & (1 << bits[c]) - 1 for c in range(3)], 1)
    share = levels / (np.exp2(bits) - 1)
    row = np.arange(_COUNT) // 256 if chunked else np.zeros(_COUNT, int)
    expected = low[row] + share * (high[row].astype(np.float64) - low[row])
    # Roundings of the share, the extent, their product and the sum, each of at most 8.
    assert np.abs(out.numpy()[:, :3] - expected).max() < 4 * 8 * 2.0**-24
    assert not out[:, 3].any()
    with pytest.raises(ValueError, match="bounds"):
        columns.unpack_fields(packed, shift, bits, (low[:0], high[:0]), out[:, :3])


def test_quaternions_have_their_largest_component_in_its_place() -> None:
    random = np.random.default_rng(5)
    packed = random.integers(0, 1 << 32, _COUNT, np.uint32)
    table = (random.uniform(-1, 1, 1024) / np.sqrt(3)).astype(np.float32)
    slots, signs = [1, 2, 3, 0], [1, -1, 1, -1]
    found = columns.unpack_largest(packed, table, slots, signs)
    for word, quat in zip(packed[:50].tolist(), found.numpy(), strict=False):
        others = [float(table[word >> shift & 1023]) for shift in (20, 10, 0)]
        place = word >> 30
        parts = [*others[:place], np.sqrt(1 - sum(v * v for v in others)), *others[place:]]
        expected = np.zeros(4)
        expected[slots] = np.array(parts) * signs
        assert np.abs(quat - expected).max() < 1e-6
    norms = found.double().norm(dim=1)
    assert (norms - 1).abs().max() < 1e-6
    # Where the others are longer than a unit vector together, the largest is 0.
    assert columns.unpack_largest(np.array([3 << 30], np.uint32), table * 0 + 1, slots, signs)[0, 0] == 0
