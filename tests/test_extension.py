"""Extension without forking: no code that handles panels asks of which class they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from house import inside, modules, tree

PARTS = (
    "diffdet.tomography.optimisation",
    "diffdet.tomography.plotting",
    "diffdet.tomography.inference",
    "diffdet.runs",
    "diffdet.report",
    "diffdet.cli",
)
BASE = "AbsPanel"


def concrete_panels() -> set[str]:
    """Names of all classes of ours that inherit from `AbsPanel`, directly or not."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while True:
        more = {name for name, above in bases.items() if above & {BASE, *found}} - found
        if not more:
            return found
        found |= more


def questions(module: str) -> Iterator[tuple[int, str]]:
    """Places where a module asks for a class: line, and source of what is asked for."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            yield node.lineno, ast.unparse(node.args[1])
        elif isinstance(node, ast.MatchClass):
            yield node.cls.lineno, ast.unparse(node.cls)
        elif isinstance(node, ast.Compare):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            if any(side.startswith("type(") or "__class__" in side or "__name__" in side for side in sides):
                yield node.lineno, " ".join(sides)


def named_in(source: str, names: set[str]) -> set[str]:
    """Which of some names stand in a piece of source."""
    return set(re.findall(r"\w+", source)) & names


def test_the_concrete_panels_are_found():
    assert {"DetectorPanel", "SigmoidDetectorPanel", "DetectorHeatMap"} <= concrete_panels()


@pytest.mark.parametrize("part", PARTS)
def test_nobody_asks_for_a_concrete_panel(part):
    panels = concrete_panels()
    wrong = [
        f"{module}:{line} asks for {sorted(names)}"
        for module in modules()
        if inside(module, part)
        for line, source in questions(module)
        if (names := named_in(source, panels))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", [part for part in PARTS if part != "diffdet.tomography.plotting"])
def test_nobody_imports_a_concrete_panel(part):
    # a class that is not imported cannot be asked for; configurations name classes as text
    panels = concrete_panels()
    wrong = [
        f"{module}:{node.lineno} imports {alias.name}"
        for module in modules()
        if inside(module, part)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in panels
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isinstance(p, DetectorPanel)", True),
        ("isinstance(p, (AbsPanel, panel.SigmoidDetectorPanel))", True),
        ("isinstance(p, DetectorPanel | int)", True),
        ("issubclass(type(p), DetectorHeatMap)", True),
        ("type(p) is DetectorPanel", True),
        ("type(p).__name__ == 'DetectorPanel'", True),
        ("isinstance(p, AbsPanel)", False),
        ("type(p) == type(q)", False),
    ],
)
def test_the_test_sees_what_it_forbids(code, found, monkeypatch):
    monkeypatch.setitem(globals(), "tree", lambda _: ast.parse(code))
    panels = {"DetectorPanel", "SigmoidDetectorPanel", "DetectorHeatMap"}
    names = set().union(*(named_in(source, panels) for _, source in questions("any")), set())
    assert bool(names) == found
