"""Files of ours and of others, made once a session."""

from __future__ import annotations

import conformance
import pytest


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> conformance.Bench:
    return conformance.make(tmp_path_factory.mktemp("conformance"))
