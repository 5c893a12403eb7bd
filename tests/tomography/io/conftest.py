"""A small table of hits, and every format in turn."""

from __future__ import annotations

from typing import Any

import pytest

from hits_tables import SUFFIXES, is_missing, make_rows


@pytest.fixture
def rows() -> dict[str, Any]:
    return make_rows(50)


@pytest.fixture(params=SUFFIXES, ids=[suffix[1:] for suffix in SUFFIXES])
def suffix(request: pytest.FixtureRequest) -> str:
    """Every format in turn, skipped loudly where its library is missing."""
    if is_missing(request.param):
        pytest.skip(f"the library that reads {request.param} files is not installed")
    return request.param
