"""The page about differences to older packages shows the whole tables, and has a heading for every part of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

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
    modules = extension.load(ROOT)
    table = [entry for module in modules for entry in module.KNOWN_DIFFERENCES]
    shown = [entry for module in modules for _, entries in extension.sections(module) for entry in entries]
    assert len(shown) == len(table) >= 90
    assert set(shown) == set(table)
    text = extension.to_markdown(modules)
    assert text.count("\n: **Before:**") == len(table)
    for entry in table:
        assert f"`{entry.path.removeprefix(extension.package_of(entry.path))}`" in text
        assert extension.told(entry) in text


def test_a_list_that_nobody_named_is_shown_under_its_own_name(extension):
    first, second = extension.load(ROOT)[0].KNOWN_DIFFERENCES[:2]
    module = SimpleNamespace(NEW_THINGS=[first], KNOWN_DIFFERENCES=[first, second])
    assert extension.sections(module) == [("New things", [first]), ("More", [second])]


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
