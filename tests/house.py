"""What the tests of the house share: the modules of the package and what their source imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"


@dataclass(frozen=True)
class Import:
    """One imported module, as the source names it."""

    importer: str
    target: str
    line: int
    top: bool
    """Whether it runs when the importer is imported, not when a function is called."""
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    found: dict[str, Path] = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"), filename=str(modules()[module]))


def imports(module: str) -> list[Import]:
    """Everything that the source of a module imports, wherever it stands."""
    return list(_walk(module, tree(module), top=True, typing_only=False))


def _walk(module: str, node: ast.AST, *, top: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, top, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
                parent = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in child.names:
                # `from package import module` names the module; `from module import name` names the module that has it
                full = f"{base}.{alias.name}"
                yield Import(module, full if full in modules() else base, child.lineno, top, typing_only)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(module, child, top=False, typing_only=typing_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _walk(module, ast.Module([statement], []), top=top, typing_only=True)
            for statement in child.orelse:
                yield from _walk(module, ast.Module([statement], []), top=top, typing_only=typing_only)
        else:
            yield from _walk(module, child, top=top, typing_only=typing_only)


def inside(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(f"{package}.")
