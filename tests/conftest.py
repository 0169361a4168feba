"""What every test may use: real data where it is at hand, and how hard hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Tests marked `fuzz` leave the number of cases to the profile: `make test` repeats the same 300 cases a
# reader, `make fuzz` (--hypothesis-profile=fuzz) draws 10,000 new ones.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", max_examples=300, derandomize=True, database=None, **_COMMON)
settings.register_profile("fuzz", max_examples=10_000, print_blob=True, **_COMMON)
settings.load_profile("suite")


def data_root() -> Path:
    """The folder of real data: $SPLAT_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("SPLAT_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """shared_data(name) -> path of a real data set; skips the test, with the reason, where it is absent."""

    def find(name: str) -> Path:
        path = data_root() / name
        if not path.exists():
            pytest.skip(
                f"real data set {name!r} is not at {path} (set SPLAT_DATA to the folder that holds it)"
            )
        return path

    return find
