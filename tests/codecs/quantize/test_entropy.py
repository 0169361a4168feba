"""Entropy coding: lengths at the entropy, round trips, and what damage may do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs.quantize import (
    decode_indices,
    decode_integers,
    encode_indices,
    encode_integers,
    range_decode,
    range_encode,
)


def entropy_bytes(counts: np.ndarray) -> float:
    used = counts[counts > 0]
    return float(-(used * np.log2(used / used.sum())).sum() / 8)


@pytest.mark.parametrize("rate", [1e-5, 0.002, 0.05, 0.9])
def test_the_length_is_the_entropy(rate: float) -> None:
    symbols = np.minimum(np.random.default_rng(0).geometric(rate, 200_000) - 1, 65535)
    counts = np.bincount(symbols, minlength=65536)
    data = range_encode(symbols, counts)
    # 8 bytes of state, and what frequencies of 24 bits cost: each is off by at most 1 in 2^24, so that a
    # symbol of share p costs at most 2^-24 / p / ln 2 bits more, all symbols together one share each.
    rounding = 200_000 * 65536 * 2**-24 / np.log(2) / 8
    assert len(data) <= entropy_bytes(counts) + 8 + rounding
    assert len(data) <= 1.01 * entropy_bytes(counts) + 8
    assert np.array_equal(range_decode(data, counts, len(symbols)), symbols)


def test_extreme_models() -> None:
    assert range_encode(np.zeros(0, int), np.ones(1, int)) == b""
    assert len(range_encode(torch.zeros(100_000, dtype=torch.int64), torch.tensor([5]))) == 8
    # Twelve thousand symbols of weight one beside one of 2^37 still have codes.
    counts = torch.ones(12_001, dtype=torch.int64)
    counts[7] = 1 << 37
    symbols = torch.arange(12_001)
    assert range_decode(range_encode(symbols, counts), counts, 12_001).equal(symbols)
    for symbols, counts in (([3], [1, 1]), ([-1], [1, 1]), ([1], [1, 0]), ([0], [0, 0]), ([0], [-1, 2])):
        with pytest.raises(ValueError, match=r"symbol|counts"):
            range_encode(np.array(symbols), np.array(counts))


@given(st.lists(st.integers(0, 40)), st.integers(41, 60))
def test_indices_come_back(labels: list[int], size: int) -> None:
    given_labels = torch.tensor(labels, dtype=torch.int64)
    assert decode_indices(encode_indices(given_labels, size), size, len(labels)).equal(given_labels)


@given(st.lists(st.one_of(st.integers(-3, 3), st.integers(-(2**61), 2**61))))
def test_integers_come_back(values: list[int]) -> None:
    given_values = torch.tensor(values, dtype=torch.int64)
    assert decode_integers(encode_integers(given_values), len(values)).equal(given_values)


def test_integers_are_short() -> None:
    values = np.random.default_rng(0).geometric(0.02, 100_000)
    values = values * np.random.default_rng(1).choice([-1, 1], 100_000)
    counts = np.bincount(values + 5000)
    # Classes of a factor of two describe a geometric distribution to a few percent.
    assert len(encode_integers(values)) < 1.05 * entropy_bytes(counts)


@pytest.mark.fuzz
@given(st.data())
def test_fuzz_damage_is_found_or_gives_indices_of_the_alphabet(data: st.DataObject) -> None:
    symbols = np.random.default_rng(0).integers(0, 30, 200)
    coded = bytearray(encode_indices(symbols, 32))
    for _ in range(data.draw(st.integers(0, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    coded = coded[: data.draw(st.integers(0, len(coded)))] + data.draw(st.binary(max_size=8))
    try:
        found = decode_indices(bytes(coded), 32, 200)
    except ValueError:
        return
    assert found.shape == (200,)
    assert 0 <= int(found.min()) <= int(found.max()) < 32
