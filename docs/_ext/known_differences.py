"""The tables of known differences as part of a page, read from the tests that hold them, at every build."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

MARK = "<!-- here come the tables of known differences -->"
"""What is replaced in a page."""

TESTS = Path("tests")
TABLES = "compat/*known_differences*.py"
"""Where modules with a list ``KNOWN_DIFFERENCES`` lie; their tests, which begin with ``test_``, are left out."""

PACKAGES: dict[str, str] = {
    "diffdet.tomography.": "Tomography (TomOpt)",
    "diffdet.nn.": "Networks (LUMIN)",
    "diffdet.overlay.": "Overlay",
    "diffdet.pxd.background_generator.": "Pixel background (basf2)",
    "": "Elsewhere",
}
"""Headings of the parts of the library, by how the paths of their entries begin."""

HEADINGS: dict[str, str] = {
    "UTILS": "Utilities",
    "PASSIVES": "Passive volumes",
    "OTHER_BENCHMARKS": "Other worked problems",
    "GEOMETRY": "Volumes and panels",
    "FITTING": "Fitting and callbacks",
}
"""Headings of lists whose name does not say enough; the others are shown under their own name."""

Section = tuple[str, list[Any]]
"""A heading and the entries below it."""


def load(repository: Path) -> list[Any]:
    """The modules that hold the tables, in alphabetical order."""
    folder = str(repository / TESTS)
    found = sorted((repository / TESTS).glob(TABLES))
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for path in found if path.stem[:5] != "test_"]
    sys.path.insert(0, folder)
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(folder)


def sections(module: Any) -> list[Section]:
    """Every list of a module whose entries are in its table, and then whatever is left."""
    table = list(module.KNOWN_DIFFERENCES)
    found = []
    for name, value in vars(module).items():
        if name != "KNOWN_DIFFERENCES" and isinstance(value, list) and value and all(one in table for one in value):
            found.append((HEADINGS.get(name, name.replace("_", " ").capitalize()), value))
    shown = [one for _, entries in found for one in entries]
    rest = [one for one in table if one not in shown]
    return [*found, *([("More", rest)] if rest else [])]


def to_markdown(modules: list[Any]) -> str:
    """All sections, by parts of the library, with their entries as definition lists."""
    lines = []
    every = [section for module in modules for section in sections(module)]
    for prefix, title in PACKAGES.items():
        here = [section for section in every if package_of(section[1][0].path) == prefix]
        if here:
            lines += [f"## {title}", ""]
        for heading, entries in here:
            lines += [f"### {heading}", ""]
            for entry in entries:
                lines += [f"`{entry.path.removeprefix(prefix)}`", f": {told(entry)}", ""]
    return "\n".join(lines)


def package_of(path: str) -> str:
    """The part of the library that a path belongs to, as a key of `PACKAGES`."""
    return next(prefix for prefix in PACKAGES if path.startswith(prefix))


def told(entry: Any) -> str:
    """What an entry says, a line each, with the name of its test."""
    parts = {"Before": entry.old, "Here": entry.ours, "Why": entry.why}
    lines = [f"**{name}:** {sentence(text)}" for name, text in parts.items()]
    test = entry.test.partition("::")[2].replace("_", "\\_")
    return "\\\n  ".join([*lines, f"*{test}*"])


def sentence(text: str) -> str:
    """Plain text as a sentence in Markdown: marks of emphasis that are none are escaped, outside of code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = "".join(part if k % 2 else re.sub(r"([*_<>\[\]$])", r"\\\1", part) for k, part in enumerate(parts))
    return plain if plain.endswith(".") else f"{plain}."


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""

    def fill(app: Any, _page: str, source: list[str]) -> None:
        if MARK in source[0]:
            repository = Path(app.srcdir).parent
            for path in (repository / TESTS).glob(TABLES):
                app.env.note_dependency(str(path))
            source[0] = source[0].replace(MARK, to_markdown(load(repository)))

    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
