"""What a callback learns while running must survive a kill: every class says what it keeps, or that it need not."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator

import pytest

import diffdet
from diffdet.loop.callbacks import Callback

MUTATORS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "fill_"}


def subclasses(base: type) -> Iterator[type]:
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


def all_callbacks() -> list[type[Callback]]:
    """Every callback class of the package."""
    for module in pkgutil.walk_packages(diffdet.__path__, "diffdet."):
        if not module.name.rpartition(".")[2].startswith("__"):
            importlib.import_module(module.name)
    found = {c for c in subclasses(Callback) if c.__module__.startswith("diffdet.")}
    return sorted(found, key=lambda c: (c.__module__, c.__qualname__))


def own_name(node: ast.AST) -> str | None:
    """X of an expression that begins with self.X, such as self.X, self.X[...] or self.X.y."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            return node.attr
        node = node.value
    return None


def learnt(cls: type) -> set[str]:
    """Names of attributes that methods of a class, other than `__init__`, assign or change."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    names: set[str | None] = set()
    for method in definition.body:
        if not isinstance(method, ast.FunctionDef) or method.name in ("__init__", "attach", "set_wrapper"):
            continue
        for node in ast.walk(method):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    names |= {own_name(part) for part in parts}
            elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
                names.add(own_name(node.target))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
                names.add(own_name(node.func.value))
    # What a callback changes in its wrapper, loop or state belongs to those.
    return {name for name in names if name is not None} - {"wrapper", "loop", "state", "_wrapper", "_fit"}


@pytest.mark.parametrize("cls", all_callbacks(), ids=lambda c: c.__qualname__)
def test_what_is_learnt_is_kept(cls: type[Callback]) -> None:
    declared = {name for base in cls.__mro__ for kind in ("saved", "transient") for name in vars(base).get(kind, ())}
    overrides = "state_dict" in vars(cls) and "load_state_dict" in vars(cls)
    missing = learnt(cls) - declared
    assert overrides or not missing, (
        f"{cls.__qualname__} changes {sorted(missing)} while running: list them in `saved`, or in `transient` if a "
        "resumed run does not need them"
    )


@pytest.mark.parametrize("cls", all_callbacks(), ids=lambda c: c.__qualname__)
def test_nothing_is_declared_that_does_not_exist(cls: type[Callback]) -> None:
    own = {name for kind in ("saved", "transient") for name in vars(cls).get(kind, ())}
    source = "".join(inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("diffdet."))
    assert {name for name in own if f"self.{name}" not in source} == set()


def test_there_are_callbacks() -> None:
    assert len(all_callbacks()) > 20
