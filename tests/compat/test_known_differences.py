"""Every known difference names a path that can be imported and a test that exists."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest


def load_tables():
    """Entries of every module `*known_differences*` beside this file."""
    files = sorted(Path(__file__).parent.glob("*known_differences*.py"))
    names = [file.stem for file in files if not file.stem.startswith("test_")]
    return [entry for name in names for entry in importlib.import_module(f"compat.{name}").KNOWN_DIFFERENCES]


TABLE = load_tables()
LABELS = [f"{k}-{entry.path.rpartition('.')[2]}" for k, entry in enumerate(TABLE)]


def look_up(path):
    """The object at a dotted path: the longest part that is a module, then attributes."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts).startswith(error.name):
                raise
            continue
        for name in parts[n:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


@pytest.mark.parametrize("entry", TABLE, ids=LABELS)
def test_the_path_can_be_imported(entry):
    assert look_up(entry.path) is not None


@pytest.mark.parametrize("entry", TABLE, ids=LABELS)
def test_the_test_exists(entry, repository):
    file, _, function = entry.test.partition("::")
    tree = ast.parse((repository / file).read_text())
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("entry", TABLE, ids=LABELS)
def test_nothing_is_left_unsaid(entry):
    assert all(len(text) > 10 for text in (entry.path, entry.old, entry.ours, entry.why, entry.test))
    assert entry.old != entry.ours


def test_no_difference_is_listed_twice():
    assert len({(entry.path, entry.old) for entry in TABLE}) == len(TABLE)
