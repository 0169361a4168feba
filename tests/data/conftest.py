"""A small sample dataset, written once; tests that damage it take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splat.data.sample import write_sample


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory) -> Path:
    """A COLMAP dataset of 6 views of 64 x 48 pixels and 300 points. Read only."""
    folder = tmp_path_factory.mktemp("sample") / "scene"
    return write_sample(folder, views=6, width=64, height=48, points=300, masks=False)


@pytest.fixture
def sample(small_sample, tmp_path) -> Path:
    """A copy of the small sample to damage."""
    return Path(shutil.copytree(small_sample, tmp_path / "scene"))
