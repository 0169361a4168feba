"""Indices coded by their neighbours and by other numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs.quantize import first_digits, mixing_decode, mixing_encode, nearest_before, tree_order
from splat.codecs.quantize.mixing import NEAR, SIDE


def known(n: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    draw = np.random.default_rng(seed)
    near = np.stack([draw.integers(-1, np.arange(n)) for _ in range(NEAR)], 1)
    return near, [draw.integers(0, 30, n) for _ in range(SIDE)]


@pytest.mark.parametrize("size", [1, 2, 3, 100, 4096, 1 << 20])
@pytest.mark.parametrize("n", [0, 1, 700])
def test_symbols_come_back(size: int, n: int) -> None:
    symbols = np.random.default_rng(size).integers(0, size, n)
    near, side = known(n)
    for given_too in ((), (near,), (near, side[:1]), (near, side)):
        data = mixing_encode(symbols, size, *given_too)
        assert np.array_equal(mixing_decode(data, size, n, *given_too).numpy(), symbols)


def test_symbols_of_no_pattern_cost_their_entropy() -> None:
    """And what it takes to learn that there is none: of 15 digits' models with 20,000 symbols, hardly anything."""
    symbols = np.random.default_rng(1).integers(0, 16, 20_000)
    assert 4 < 8 * len(mixing_encode(symbols, 16)) / len(symbols) < 4 * 1.02


def test_what_is_known_is_used() -> None:
    """A symbol is that of its neighbour, or another in one case of ten; then half of its digits are its side."""
    draw = np.random.default_rng(2)
    n, size = 20_000, 64
    near = np.maximum(np.arange(n)[:, None] - draw.integers(1, 50, (n, NEAR)), -1)
    symbols = draw.integers(0, size, n)
    for i in range(n):
        if near[i, 0] >= 0 and draw.random() < 0.9:
            symbols[i] = symbols[near[i, 0]]
    # The neighbour's first five digits are a context: the last is left to be coded.
    least = -0.9 * math.log2(0.9 + 0.1 / size) - 0.1 * math.log2(0.1 / size)
    bits = 8 * len(mixing_encode(symbols, size, near)) / n
    assert least < bits < least + 1.1
    assert 8 * len(mixing_encode(symbols, size)) / n > bits + 2
    # Of six digits three are known by the side, and learning that takes a little.
    symbols = draw.integers(0, size, n)
    bits = 8 * len(mixing_encode(symbols, size, side=[symbols // 8])) / n
    assert 3 < bits < 3.1


def test_the_bytes_are_those_of_every_machine() -> None:
    """Integers alone decide; a change of any constant of the coder is a new version of the format."""
    symbols = (np.arange(60) * np.arange(60) // 7) % 11
    near = np.maximum(np.arange(60)[:, None] - [1, 3, 9], -1)
    expected = "f9313acfd1278b322a61bfbf9c7f07432df80188c586c0836135a2be51ddde766813e71319892f43"
    assert mixing_encode(symbols, 11, near, [np.arange(60) % 4]).hex() == expected


def test_damage_is_refused() -> None:
    symbols = np.random.default_rng(3).integers(0, 50, 300)
    data = mixing_encode(symbols, 50)
    for broken in (data[:-1], data + b"\0", b"", data[:3]):
        with pytest.raises(ValueError, match="damaged"):
            mixing_decode(broken, 50, 300)
    with pytest.raises(ValueError, match="damaged"):
        mixing_decode(b"\0", 1, 300)
    with pytest.raises(ValueError, match="no symbols"):
        mixing_decode(data, 0, 300)
    with pytest.raises(ValueError, match="outside"):
        mixing_encode(symbols, int(symbols.max()))
    with pytest.raises(ValueError, match="do not fit"):
        mixing_encode(symbols, 50, np.tile(np.arange(300)[:, None], (1, NEAR)))


@pytest.mark.fuzz
@given(st.binary(max_size=200), st.integers(1, 5000), st.integers(0, 100))
def test_any_bytes(data: bytes, size: int, n: int) -> None:
    try:
        symbols = mixing_decode(data, size, n)
    except ValueError:
        return
    assert symbols.shape == (n,)
    assert n == 0 or 0 <= int(symbols.min()) <= int(symbols.max()) < size


def test_the_nearest_before() -> None:
    cells = np.random.default_rng(4).integers(0, 1 << 20, (300, 3))
    near = nearest_before(cells)
    for i in (0, 1, 2, 50, 299):
        first = max(0, i - 128)
        distance = ((cells[first:i] - cells[i]) ** 2).sum(1)
        expected = first + np.argsort(distance)[:NEAR]
        assert near[i].tolist() == [*expected, *[-1] * (NEAR - len(expected))]


def test_an_order_of_words_in_which_the_first_digits_tell_much() -> None:
    words = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    order = tree_order(words, torch.ones(1000))
    assert order.sort().values.equal(torch.arange(1000))
    groups = torch.from_numpy(first_digits(np.arange(1000), 1000, 3))
    inside = sum(float(words[order[groups == group]].var(0).sum()) for group in groups.unique()) / 8
    # Halved along each of three columns: a quarter of the variance is left.
    assert inside < 0.3 * float(words.var(0).sum())
    assert tree_order(torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.ones(4)).tolist() == [3, 1, 2, 0]
    assert len(tree_order(torch.zeros(0, 2), torch.zeros(0))) == 0
