"""Fixtures of the tests of networks."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch


@pytest.fixture
def compilable() -> Iterator[None]:
    """Kernels without the checks of shapes that the tests hang on them: `torch.compile` cannot follow those."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", before)
