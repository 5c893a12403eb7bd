"""Documented names can be imported, and take the documented arguments in the documented order with the documented
defaults."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest

NOT_YET: set[str] = set()
"""Documented modules or names that this version does not have. An entry whose name exists fails a test: take it out."""


def find_shared():
    """The folder with specifications beside the repository, or None."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "spec" / "surface.json").is_file():
            return folder / "shared"
    return None


SHARED = find_shared()
SURFACE = json.loads((SHARED / "spec" / "surface.json").read_text()) if SHARED else {}
NAMES = [f"{module}.{name}" for module, names in SURFACE.items() for name in names]


def is_not_yet(path):
    return any(path == entry or path.startswith(entry + ".") for entry in NOT_YET)


@pytest.fixture(scope="session")
def comparison(shared_dir):
    """The tool that compares a documented signature with an object."""
    spec = importlib.util.spec_from_file_location("check_surface", shared_dir / "tools" / "check_surface.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def look_up(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_specification_is_at_hand(shared_dir):
    assert NAMES, f"no names in {shared_dir}"


@pytest.mark.parametrize("path", [path for path in NAMES if not is_not_yet(path)])
def test_documented_signature(path, comparison):
    module, _, name = path.rpartition(".")
    entry, found = SURFACE[module][name], look_up(path)
    callable_kind = entry["kind"] in ("class", "function")
    told = list(comparison.differences(entry.get("parameters"), found)) if callable_kind else []
    for member, documented in entry.get("members", {}).items():
        if documented["kind"] in ("attribute", "property"):
            differences = [] if comparison.instance_attribute(found, member) else ["is missing"]
        elif not hasattr(found, member):
            differences = ["is missing"]
        else:
            differences = list(comparison.differences(documented.get("parameters"), getattr(found, member)))
        told += [f".{member}: {difference}" for difference in differences]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("entry", sorted(NOT_YET))
def test_what_is_not_yet_there_is_really_absent(entry):
    covered = [path for path in NAMES if path == entry or path.startswith(entry + ".")]
    present = []
    for path in covered:
        try:
            look_up(path)
        except (ModuleNotFoundError, AttributeError):
            continue
        present.append(path)
    assert not present, f"take out of NOT_YET, or list what is missing one by one: {present}"
    assert covered or not NAMES, f"`{entry}` covers no documented name"
