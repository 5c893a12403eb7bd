"""A small table of hits, and every format in turn."""

from __future__ import annotations

from typing import Any

import pytest

from hits_tables import SUFFIXES, make_rows


@pytest.fixture
def rows() -> dict[str, Any]:
    return make_rows(50)


@pytest.fixture(params=SUFFIXES, ids=[suffix[1:] for suffix in SUFFIXES])
def suffix(request: pytest.FixtureRequest) -> str:
    """Every format in turn, skipped loudly where its library is missing."""
    needs = {".parquet": "pyarrow", ".root": "uproot"}.get(request.param)
    if needs is not None:
        pytest.importorskip(needs)
    return request.param
