"""Every known difference names a path that can be imported and a test that exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest


def load_table():
    """The module `known_differences` beside this file."""
    file = Path(__file__).with_name("known_differences.py")
    spec = importlib.util.spec_from_file_location("known_differences", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.KNOWN_DIFFERENCES


TABLE = load_table()
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
