"""The table of known differences as part of a page, read from the tests that hold it, at every build."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

MARK = "<!-- here comes the table of known differences -->"
"""What is replaced in a page."""

TABLE = Path("tests") / "compat" / "known_differences.py"

SECTIONS: dict[str, str] = {
    "MUONS": "Muons",
    "UTILS": "Utilities",
    "PASSIVES": "Passive volumes",
    "LOSSES": "Losses",
    "LADLE_FURNACE": "Ladle furnace",
    "OTHER_BENCHMARKS": "Other worked problems",
    "HEAT_MAP": "Heat map",
    "SCATTER_MODELS": "Scatter models",
    "PLOTTING": "Plotting",
    "GEOMETRY": "Volumes and panels",
    "FITTING": "Fitting and callbacks",
    "FLIGHT_AND_INFERENCE": "Flight and inference",
}
"""Headings, by the name of the list that each section shows; a list without a heading is shown under its own name."""


def load(repository: Path) -> Any:
    """The module that holds the table."""
    spec = importlib.util.spec_from_file_location("diffdet_known_differences", repository / TABLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def sections(module: Any) -> list[tuple[str, list[Any]]]:
    """Headings and entries: every list of the module whose entries are in the table, and then whatever is left."""
    table = list(module.KNOWN_DIFFERENCES)
    found = []
    for name, value in vars(module).items():
        if name != "KNOWN_DIFFERENCES" and isinstance(value, list) and value and all(one in table for one in value):
            found.append((SECTIONS.get(name, name.replace("_", " ").capitalize()), value))
    shown = [one for _, entries in found for one in entries]
    rest = [one for one in table if one not in shown]
    return [*found, *([("More", rest)] if rest else [])]


def to_markdown(module: Any) -> str:
    """The sections with their entries, one definition list each."""
    lines = []
    for heading, entries in sections(module):
        lines += [f"## {heading}", ""]
        for entry in entries:
            parts = {"Before": entry.old, "Here": entry.ours, "Why": entry.why}
            told = [f"**{name}:** {sentence(text)}" for name, text in parts.items()]
            body = "\\\n  ".join([*told, f"*{entry.test.partition('::')[2]}*".replace("_", "\\_")])
            lines += [f"`{short(entry.path)}`", f": {body}", ""]
    return "\n".join(lines)


def short(path: str) -> str:
    """A path without what all have in common."""
    return path.removeprefix("diffdet.tomography.")


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
            app.env.note_dependency(str(repository / TABLE))
            source[0] = source[0].replace(MARK, to_markdown(load(repository)))

    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
