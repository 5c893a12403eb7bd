"""The page about differences to the older package shows the whole table, and has a heading for every part of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def extension():
    """The extension of the documentation that renders the table."""
    spec = importlib.util.spec_from_file_location("docs_known_differences", ROOT / "docs/_ext/known_differences.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_difference_is_shown_once(extension):
    table = extension.load(ROOT)
    shown = [entry for _, entries in extension.sections(table) for entry in entries]
    assert len(shown) == len(table.KNOWN_DIFFERENCES)
    assert set(shown) == set(table.KNOWN_DIFFERENCES)
    text = extension.to_markdown(table)
    for entry in table.KNOWN_DIFFERENCES:
        assert f"`{extension.short(entry.path)}`" in text
        for part in (entry.old, entry.ours, entry.why):
            assert extension.sentence(part) in text


def test_a_list_that_nobody_named_is_shown_under_its_own_name(extension):
    table = extension.load(ROOT)
    table.NEW_THINGS = [table.MUONS[0]]
    table.KNOWN_DIFFERENCES = [*table.NEW_THINGS, table.UTILS[0]]
    table.MUONS = table.UTILS = []
    found = extension.sections(table)
    assert [heading for heading, _ in found] == ["New things", "More"]


def test_the_page_has_the_mark_that_the_table_replaces(extension):
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    assert page.count(extension.MARK) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a `b_c` and d_e", "a `b_c` and d\\_e."),
        ("x < 1 or [2]", "x \\< 1 or \\[2\\]."),
        ("two\n  lines.", "two lines."),
    ],
)
def test_text_is_shown_as_it_was_written(extension, text, expected):
    assert extension.sentence(text) == expected
