"""Fixtures and options of the whole suite: one visible seed, both dtypes, the reference data beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # several workers share the machine, and small tensors gain nothing from threads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="seed of torch's generator at the start of every test")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')}, torch {torch.__version__}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run of the suite."""
    return int(request.config.getoption("--seed"))


@pytest.fixture(autouse=True)
def _seeded(seed: int) -> None:
    """Every test starts from the same state of torch's generator, whatever ran before it."""
    torch.manual_seed(seed)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both floating types that every kernel must serve."""
    return request.param


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` with specifications and reference data, beside the repository or above it."""
    root = Path(__file__).resolve().parents[1]
    for folder in root.parents:
        if (folder / "shared" / "spec").is_dir():
            return folder / "shared"
    pytest.skip(f"no folder `shared` with reference data in any folder above {root}: comparisons with it are left out")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return Path(__file__).resolve().parents[1]
