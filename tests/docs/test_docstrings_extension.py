"""Docstrings as reStructuredText: marks of the house mean something, all other characters stay what they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "docstrings.py"


@pytest.fixture(scope="module")
def to_rst():
    spec = importlib.util.spec_from_file_location("docs_docstrings", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda text: "\n".join(module.to_rst(text.split("\n")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("``a * b`` stays", "``a * b`` stays"),
        ("a * b and |a x b|", "a \\* b and \\|a x b\\|"),
        ("`name` is literal", "``name`` is literal"),
        ("some *emphasis* here", "some *emphasis* here"),
        ("shape (*batch, 3)", "shape (\\*batch, 3)"),
        ("2**3 is 8", "2\\*\\*3 is 8"),
        ("y = a\n* b", "y = a\n\\* b"),
        ("- one\n- two", "- one\n- two"),
        ("* one\n* two, a * b", "- one\n- two, a \\* b"),
        ("* **one**: first\n  of all\n* **two**", "- **one**: first\n  of all\n- **two**"),
    ],
)
def test_text_becomes_what_was_meant(to_rst, text, expected):
    assert to_rst(text) == expected
