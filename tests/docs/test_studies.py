"""The tables of the studies in the documentation are those of the records."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest


@pytest.fixture(scope="module")
def studies(repository):
    file = repository / "docs" / "figures" / "studies.py"
    spec = importlib.util.spec_from_file_location("docs_studies", file)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_tables_are_those_of_the_records(studies, repository):
    page = (repository / "docs" / "studies.md").read_text(encoding="utf-8")
    assert studies.renewed(page) == page, "run `python docs/figures/studies.py`"
    assert set(re.findall(r"<!-- table: ([\w ]+) -->", page)) == set(studies.TABLES)


def test_every_study_has_five_seeds(studies):
    for inferrer in studies.furnace.INFERRERS:
        assert len(studies.records("ladle_furnace_study", inferrer=inferrer)) == 5
    for problem in studies.small.PROBLEMS:
        assert len(studies.records("small_problems_study", problem=problem)) == 5


def test_the_likelihood_beats_what_is_published_of_every_detector(studies):
    runs = studies.records("ladle_furnace_study", inferrer="likelihood")
    for row, figures in studies.furnace.PUBLISHED.items():
        for column, published in figures.items():
            assert all(run["rows"][row][column] < published for run in runs), (row, column)


@pytest.mark.parametrize("problem", ["small_walls", "u_lorry"])
def test_optimised_detectors_beat_their_initial_ones_by_three_standard_errors(studies, problem):
    assert all(run["standard_errors"] > 3 for run in studies.records("small_problems_study", problem=problem))
