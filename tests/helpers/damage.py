"""Damaged files, and what a reader may make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from splat.codecs import decode, inspect
from splat.core import DataError


def damaged(original: bytes, header: int) -> st.SearchStrategy[bytes]:
    """The file cut, with bytes overwritten (half of them in its first `header`), removed or inserted."""
    place = st.one_of(st.integers(0, header), st.integers(0, len(original)))
    edit = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
        data = original
        for at, removed, inserted in edits:
            data = data[:at] + inserted + data[at + removed :]
        return data[:end]

    whole = st.just(len(original) + 100)
    return st.builds(
        apply, st.lists(edit, min_size=0, max_size=4), st.one_of(whole, st.integers(0, len(original)))
    )


def check_reader(path: Path) -> None:
    """`decode` gives a valid scene or a DataError that begins with the path; `inspect` likewise."""
    found = _outcome(decode, path)
    if isinstance(found, DataError):
        assert str(found).startswith(str(path))
    else:
        scene, metadata = found
        scene.validate()
        assert all(bool(torch.isfinite(t).all()) for _, t in scene.named_tensors())
        assert all(map(math.isfinite, metadata.get("offset", ())))
    facts = _outcome(inspect, path)
    if isinstance(facts, DataError):
        assert str(facts).startswith(str(path))
    else:
        assert facts["count"] >= 0


def _outcome(reader: Callable[[Path], Any], path: Path) -> Any:
    """What the reader returns, or its DataError; any other error is the test's failure."""
    try:
        return reader(path)
    except DataError as error:
        return error
