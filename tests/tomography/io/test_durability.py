"""A file of hits is whole or absent, reading takes bounded memory, and order of events costs what is promised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hits_faults
from diffdet.core.errors import InputError, StorageError
from diffdet.tomography.io import BASE_COLUMNS, HitsReader
from diffdet.tomography.io.rows import Contiguity
from hits_tables import SUFFIXES, is_missing, make_rows, read_rows, write_foreign, write_hits

SRC = Path(__file__).resolve().parents[3] / "src"


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened to writers that were killed, ran out of disk, or wrote long files; see `hits_faults`."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    suffixes = [suffix for suffix in SUFFIXES if not is_missing(suffix)]
    done = subprocess.run(
        [sys.executable, hits_faults.__file__, tmp_path_factory.mktemp("faults"), *suffixes],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("moment", hits_faults.MOMENTS)
def test_killed_writer_leaves_what_was_there(moment: str, suffix: str, faults: dict[str, Any]) -> None:
    outcome = faults[f"kill {moment} {suffix}"]
    assert outcome["signal"] == signal.SIGKILL
    assert outcome["unchanged"]
    assert all(name == f"hits{suffix}" or name.endswith(".tmp") for name in outcome["files"])


@pytest.mark.parametrize("limit", hits_faults.LIMITS)
def test_full_disk_is_one_error_and_harms_nothing(limit: int, suffix: str, faults: dict[str, Any]) -> None:
    outcome = faults[f"full {limit} {suffix}"]
    assert outcome["error"].startswith("StorageError: cannot write `")
    assert f"hits{suffix}`: " in outcome["error"]
    assert "File too large" in outcome["error"]
    assert outcome["unchanged"]
    assert outcome["files"] == [f"hits{suffix}"]


def test_memory_does_not_grow_with_the_file(suffix: str, faults: dict[str, Any]) -> None:
    """Four times the rows, 480,000 of 66 bytes (32 MB) more: less than 10 MB more memory, written and read."""
    small, large = (faults[f"memory {blocks} {suffix}"]["peak_kb"] for blocks in hits_faults.BLOCKS)
    assert large - small < 10_000


def test_missing_folder_is_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No such file or directory.*create its folder first"):
        write_hits(tmp_path / "nowhere" / f"hits{suffix}", make_rows(2))
    assert not list(tmp_path.iterdir())


class TestContiguity:
    """Against the obvious twin: remember every number."""

    @staticmethod
    def fails(events: np.ndarray, piece: int) -> int | None:
        def describe(event: int, row: int) -> str:
            return f"{row}"

        check = Contiguity(describe, lambda row: np.unique(events[:row]))
        try:
            for start in range(0, len(events), piece):
                check.add(events[start : start + piece], start)
        except InputError as error:
            return int(str(error))
        return None

    @staticmethod
    def twin(events: np.ndarray) -> int | None:
        seen: set[int] = set()
        last = None
        for row, event in enumerate(events.tolist()):
            if event != last and event in seen:
                return row
            seen.add(event)
            last = event
        return None

    def cases(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(3)
        for n in (1, 2, 3, 10, 40):
            for _ in range(60):
                order = rng.permutation(n) if rng.random() < 0.5 else np.roll(np.arange(n), int(rng.integers(n)))
                events = np.repeat(order, rng.integers(1, 4, n))
                if rng.random() < 0.5:
                    events[int(rng.integers(len(events)))] = int(rng.integers(n))
                yield events

    @pytest.mark.parametrize("piece", [1, 2, 7, 1000])
    def test_against_twin(self, piece: int) -> None:
        verdicts = []
        for events in self.cases():
            expected = self.twin(events)
            assert self.fails(events, piece) == expected, events.tolist()
            verdicts.append(expected is None)
        assert 30 < sum(verdicts) < len(verdicts) - 30

    def test_growing_numbers_are_never_remembered(self) -> None:
        check = Contiguity(lambda event, row: "", lambda row: pytest.fail("read again"))
        for start in (0, 10_000, 5_000):  # blocks that do not overlap, as in merged files
            for begin in range(start, start + 5_000, 100):
                check.add(np.repeat(np.arange(begin, begin + 100) * 2, 3), 0)
        assert len(check._blocks) == 150


def test_shuffled_events_are_read_and_checked(suffix: str, tmp_path: Path) -> None:
    rows = make_rows(60, missing=0.0)
    order = np.random.default_rng(1).permutation(60)
    shuffled = {name: values.reshape(60, 8)[order].ravel() for name, values in rows.items() if name in BASE_COLUMNS}
    path = write_hits(tmp_path / f"hits{suffix}", shuffled)
    np.testing.assert_array_equal(read_rows(path, 16)["event"], shuffled["event"])
    shuffled["event"][-1] = shuffled["event"][100]
    path = write_hits(path, shuffled)
    with pytest.raises(InputError, match=f"event {shuffled['event'][100]} appears again") as caught:
        read_rows(path, 16)
    assert ("line 481" if suffix == ".csv" else "row 479") in str(caught.value)


def test_reader_can_start_again(suffix: str, tmp_path: Path) -> None:
    path = write_hits(tmp_path / f"hits{suffix}", make_rows(20))
    with HitsReader(path) as reader:
        first = [table.events.tolist() for table in reader.chunks(6)]
        assert [table.events.tolist() for table in reader.chunks(6)] == first


def test_foreign_file_that_was_not_sorted_by_plane(tmp_path: Path) -> None:
    rows = make_rows(10, missing=0.0)
    turned = {name: values.reshape(10, 8)[:, ::-1].ravel() for name, values in rows.items()}
    turned["position"] = np.array(["above", "below"])[turned["position"]]
    path = write_foreign(tmp_path / "hits.npz", turned)
    with HitsReader(path) as reader:
        table = next(reader.chunks())
    for name, values in table.to_rows().items():
        np.testing.assert_array_equal(values, rows[name])
