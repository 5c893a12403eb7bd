"""Docstrings as reStructuredText: what they say stays as written, and names in backticks become links.

Docstrings of the house are plain text with a few marks: ``literal``, `name`, *emphasis*, lists, tables of pipes, and
Google's sections. Formulas in them hold characters that reStructuredText would take for marks of its own
(``|a x b|``, ``(*batch, 3)``, ``e_``); they are escaped here, before any other extension reads the text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

Resolve = Callable[[str], str | None]
"""Full path of what a name in backticks stands for, or None."""

_MARKED = re.compile(r"(``.+?``|:\w+(?::\w+)*:`[^`]+`|`[^`]+`|(?<![\w*])\*\*[^\s*][^*\n]*\*\*(?![\w*]))", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*(])(\*[^\s*()][^*()\n]*[^\s*()]\*|\*[^\s*()]\*)(?![\w*])")
_STARRED = re.compile(r"^(\s*)(\*{1,2}\w+)(:)")
_BULLET = re.compile(r"^(\s*)\* (?=\S)", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z_][\w.]*(\(\))?$")
_ROW = re.compile(r"^\s*\|(.+)\|\s*$")


def to_rst(lines: list[str], resolve: Resolve = lambda _name: None) -> list[str]:
    """The lines of a docstring, in reStructuredText.

    Args:
        lines: As written.
        resolve: Finds what names in backticks stand for.

    Returns:
        As many lines, or more where they hold a table.
    """
    return list(_blocks(lines, resolve))


def _blocks(lines: list[str], resolve: Resolve) -> Iterator[str]:
    """Literal and fenced blocks and examples as they are, tables as lists, and paragraphs marked up."""
    number, literal_indent = 0, -1
    while number < len(lines):
        line = lines[number]
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            yield line
            number += 1
            continue
        if 0 <= literal_indent < indent:
            yield line
            number += 1
            continue
        if line.strip().startswith("```"):
            end = next((k for k in range(number + 1, len(lines)) if lines[k].strip() == "```"), len(lines))
            yield from ("", " " * indent + "::", "", *(f"   {inner}" for inner in lines[number + 1 : end]), "")
            number = end + 1
            continue
        end = number
        while end < len(lines) and lines[end].strip():
            end += 1
            if lines[end - 1].rstrip().endswith("::"):
                break
        paragraph = lines[number:end]
        if line.lstrip().startswith(">>>"):
            yield from paragraph
        elif all(_ROW.match(row) for row in paragraph):
            yield from _table(paragraph, resolve)
        else:
            yield from mark_up("\n".join(paragraph), resolve).split("\n")
        last = paragraph[-1]
        literal_indent = len(last) - len(last.lstrip()) if last.rstrip().endswith("::") else -1
        number = end


def mark_up(text: str, resolve: Resolve = lambda _name: None) -> str:
    """A paragraph outside of literal blocks."""
    if _BULLET.match(text):  # elsewhere, a line that begins with an asterisk goes on with a product
        text = _BULLET.sub(r"\1- ", text)
    parts = _MARKED.split(text)
    return "".join(_mark(part, resolve) if k % 2 else _escape(part) for k, part in enumerate(parts))


def _mark(part: str, resolve: Resolve) -> str:
    """A marked name: a link where it is known, else literal text."""
    if part.startswith(("``", ":", "**")):
        return part
    inner = part.strip("`")
    path = resolve(inner.removesuffix("()")) if _NAME.match(inner) else None
    if path is None:
        return f"``{inner}``"
    shown = inner.rpartition(".")[2] if inner.startswith("diffdet.") else inner
    return f":py:obj:`{shown} <{path}>`"


def _escape(text: str) -> str:
    """Plain text, in which only pairs of single asterisks about words mean something."""
    parts = _EMPHASIS.split(text)
    escaped = "".join(part if k % 2 else _escape_plain(part) for k, part in enumerate(parts))
    # names of starred arguments are Google's, and escaped by whoever reads that
    return "\n".join(re.sub(r"^(\s*)\\\*(?:\\(\*))?(\w+:)", r"\1*\2\3", line) for line in escaped.split("\n"))


def _escape_plain(text: str) -> str:
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text.replace("*", r"\*").replace("|", r"\|"))


def _table(rows: list[str], resolve: Resolve) -> Iterator[str]:
    """A table of pipes, its first row the head, as a list-table."""
    indent = " " * (len(rows[0]) - len(rows[0].lstrip()))
    yield f"{indent}.. list-table::"
    yield f"{indent}   :header-rows: 1"
    yield ""
    for row in rows:
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            continue
        for k, cell in enumerate(cells):
            yield f"{indent}   {'* -' if k == 0 else '  -'} {mark_up(cell, resolve)}"
    yield ""


# ------------------------------------------------------------------------------------------------------- names to paths


def resolver(where: str, index: dict[str, str]) -> Resolve:
    """What looks names up as somebody at a place would mean them.

    Args:
        where: Full path of the object whose docstring it is.
        index: Full paths of public classes and functions whose name occurs once.
    """

    def resolve(name: str) -> str | None:
        owner, path = _owner(where)
        while owner is not None:
            found = _attribute(owner, name)
            if found is not None:
                return _home(found, f"{path}.{name}")
            if not isinstance(owner, type):
                break
            path = path.rpartition(".")[0]
            owner = sys.modules.get(path)
        if name.startswith("diffdet."):
            return name
        first, _, rest = name.partition(".")
        return f"{index[first]}{'.' + rest if rest else ''}" if first in index else None

    return resolve


def _owner(where: str) -> tuple[Any, str]:
    """The class that holds an object, or its module, and its path."""
    parts = where.split(".")
    for n in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:n]))
        if module is not None:
            inner = getattr(module, parts[n], None) if n < len(parts) else None
            return (inner, ".".join(parts[: n + 1])) if isinstance(inner, type) else (module, ".".join(parts[:n]))
    return None, ""


def _attribute(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part, None)
        if owner is None:
            return None
    return owner


def _home(found: Any, path: str) -> str | None:
    """Where an object is documented: at its own home if that is public, else where it was found."""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str):
        if not module.startswith("diffdet"):
            return None
        if not any(part.startswith("_") for part in module.split(".")):
            return f"{module}.{name}"
    return path


def build_index(modules: list[str]) -> dict[str, str]:
    """Paths of public classes and functions by name, those left out that two modules have."""
    import importlib

    found: dict[str, set[str]] = {}
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            if getattr(value, "__module__", None) == module and not name.startswith("_"):
                found.setdefault(name, set()).add(f"{module}.{name}")
    return {name: paths.pop() for name, paths in found.items() if len(paths) == 1}


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    index: dict[str, str] = {}

    def begin(app: Any) -> None:
        from pathlib import Path

        from api_pages import public_modules

        index.update(build_index(public_modules(Path(app.srcdir).parent / "src")))

    def process(_app: Any, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = to_rst(lines, resolver(name, index))

    def process_types(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = [line.replace("*", r"\*") if line.startswith(":vartype") else line for line in lines]

    app.setup_extension("sphinx.ext.autodoc")  # which brings the event
    app.connect("builder-inited", begin)
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-docstring", process_types, priority=900)  # shapes in the types of attributes
    return {"parallel_read_safe": True, "parallel_write_safe": True}
