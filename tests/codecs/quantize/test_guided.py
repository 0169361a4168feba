"""Words coded by what similar things hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat.codecs.quantize import gaps, guided_decode, guided_encode, halved, most_alike, nearest_among
from splat.codecs.quantize.guided import NEAR, SIDES, UNIT, Known, Tables


def unknown(n: int) -> Known:
    none = np.full(n, -1)
    return Known(np.full((n, NEAR), -1), np.zeros(n), none, np.zeros(n))


def known(n: int, tables: int = 1, seed: int = 0) -> Known:
    draw = np.random.default_rng(seed)
    near = np.stack([draw.integers(-1, np.arange(n)) for _ in range(NEAR)], 1)
    side = [draw.integers(-5, 1 << 20, n) for _ in range(SIDES)]
    return Known(
        near, draw.integers(0, 64, n), near[:, 3], draw.integers(0, 16, n), side, draw.integers(0, tables, n)
    )


def tables(sizes: list[int], width: int, unsigned: bool = False) -> Tables:
    draw = np.random.default_rng(len(sizes))
    words = draw.normal(size=(sum(sizes), width))
    words *= (UNIT if unsigned else 100) / np.linalg.norm(words, axis=1)[:, None]
    return Tables(words.round().astype(np.int16), np.cumsum([0, *sizes]), unsigned)


@pytest.mark.parametrize("sizes", [[1], [2], [700], [5, 1, 64]])
@pytest.mark.parametrize(("width", "unsigned"), [(1, False), (12, False), (3, True)])
@pytest.mark.parametrize("n", [0, 1, 500])
def test_symbols_come_back(sizes: list[int], width: int, unsigned: bool, n: int) -> None:
    words, of = tables(sizes, width, unsigned), known(n, len(sizes))
    symbols = np.random.default_rng(1).integers(0, np.array(sizes)[of.table])
    data = guided_encode(symbols, words, of)
    assert np.array_equal(guided_decode(data, words, of).numpy(), symbols)


def test_symbols_of_no_pattern_cost_their_entropy() -> None:
    words = tables([16], 3)
    symbols = np.random.default_rng(1).integers(0, 16, 20_000)
    assert 4 < 8 * len(guided_encode(symbols, words, unknown(20_000))) / 20_000 < 4 * 1.02


@pytest.mark.parametrize("unsigned", [False, True])
def test_words_like_those_near_are_cheap(unsigned: bool) -> None:
    """Points of a circle, each a step of deviation 4 of 256 from the one before: log2(4 sqrt(2 pi e)) = 4.05 bits in
    place of 8. All nodes share what is learned, so that 4,000 symbols suffice. Of a half circle whose ends meet, in
    which a word is its negative, a step of deviation 4 is the same."""
    draw = np.random.default_rng(3)
    n, size = 4000, 256
    angle = np.arange(size) * ((1 if unsigned else 2) * np.pi / size)
    circle = UNIT * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    words = Tables(circle.round().astype(np.int16), np.array([0, size]), unsigned)
    symbols = (draw.normal(size=n) * 4).cumsum().round().astype(np.int64) % size
    before = np.arange(n)[:, None] - np.arange(1, NEAR + 1)
    last = np.arange(n) - 1
    of = Known(np.maximum(before, -1), np.zeros(n), last, np.zeros(n))
    assert 4.05 < 8 * len(guided_encode(symbols, words, of)) / n < 4.9
    assert 8 * len(guided_encode(symbols, words, unknown(n))) / n > 7


def test_the_bytes_are_those_of_every_machine() -> None:
    """Integers alone decide; a change of any constant of the coder is a new version of the format."""
    n = 60
    place = np.arange(n)
    words = Tables((place[:33].reshape(11, 3) * 7 % 50).astype(np.int16), np.array([0, 11]))
    near = np.maximum(place[:, None] - np.arange(1, NEAR + 1) * 2, -1)
    of = Known(near, place % 5, near[:, 1], place % 16, [place % 4])
    expected = "fff8fbc53f0dfc4c9f15aacc0f9d5cabfc142a3586662f5c7151dc397c24"
    assert guided_encode(place * place // 7 % 11, words, of).hex() == expected


def test_damage_is_refused() -> None:
    words, of = tables([50], 3), known(300)
    symbols = np.random.default_rng(3).integers(0, 50, 300)
    data = guided_encode(symbols, words, of)
    for broken in (data[:-1], data + b"\0", b"", data[:3]):
        with pytest.raises(ValueError, match="damaged"):
            guided_decode(broken, words, of)
    with pytest.raises(ValueError, match="outside"):
        guided_encode(symbols + 50, words, of)
    ahead = Known(np.tile(np.arange(300)[:, None], (1, NEAR)), of.gap, of.alike, of.unlike)
    for wrong in (ahead, Known(of.near, of.gap, of.alike, of.unlike + 16), known(300, 2)):
        with pytest.raises(ValueError, match="does not fit"):
            guided_encode(symbols, words, wrong)
    with pytest.raises(ValueError, match="other shapes"):
        guided_encode(symbols[:-1], words, of)


@pytest.mark.fuzz
@given(st.binary(max_size=200), st.integers(1, 3000), st.integers(0, 100), st.booleans())
def test_any_bytes(data: bytes, size: int, n: int, unsigned: bool) -> None:
    try:
        symbols = guided_decode(data, tables([size, 7], 3, unsigned), known(n, 2))
    except ValueError:
        return
    assert symbols.shape == (n,)
    assert n == 0 or 0 <= int(symbols.min()) <= int(symbols.max()) < max(size, 7)


def test_the_nearest_among_those_before() -> None:
    cells = np.random.default_rng(4).integers(0, 1 << 20, (300, 3))
    near = nearest_among(cells, 100, 5)
    for i in (0, 1, 2, 50, 299):
        first = max(0, i - 100)
        distance = ((cells[first:i] - cells[i]) ** 2).sum(1)
        expected = first + np.argsort(distance)[:5]
        assert near[i].tolist() == [*expected, *[-1] * (5 - len(expected))]
    apart = gaps(cells, near)
    assert apart[0] == 63
    square = int(((cells[299] - cells[near[299, 0]]) ** 2).sum())
    assert apart[299] == square.bit_length()


def test_the_most_alike_of_those_near() -> None:
    features = np.array([[0, 0], [100, 0], [0, 40], [90, 0]])
    near = np.array([[-1, -1], [0, -1], [1, 0], [0, 1]])
    alike, unlike = most_alike(near, features, np.array([64, 128]))
    assert alike.tolist() == [-1, 0, 0, 1]
    # 100; 80 and 2 as it is the second place; 10 and 2: classes by powers of two, the last where there is none.
    assert unlike.tolist() == [15, 7, 7, 4]


def test_an_order_of_vectors_in_which_the_first_digits_tell_much() -> None:
    vectors = np.random.default_rng(0).integers(-1000, 1000, (1000, 3)).astype(np.int16)
    order = halved(vectors)
    assert np.array_equal(np.sort(order), np.arange(1000))
    groups = (np.arange(1000) >> 7).tolist()
    inside = sum(vectors[order[np.array(groups) == group]].var(0).sum() for group in range(8)) / 8
    # Halved along each of three columns: a quarter of the variance is left.
    assert inside < 0.3 * vectors.var(0).sum()
    assert halved(np.array([[3, 0, 0], [1, 0, 0], [2, 0, 0], [1, 0, 0]], np.int16)).tolist() == [1, 3, 2, 0]
