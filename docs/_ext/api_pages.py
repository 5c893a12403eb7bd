"""Pages of the API, one for each package, written anew at every build so that no module can be forgotten."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

PACKAGES: dict[str, str] = {
    "diffdet.tomography.muon": "Muons",
    "diffdet.tomography.volume": "Volumes and detectors",
    "diffdet.tomography.inference": "Inference",
    "diffdet.tomography.optimisation": "Optimisation: wrapper and step",
    "diffdet.tomography.optimisation.callbacks": "Callbacks",
    "diffdet.tomography.optimisation.loss": "Losses",
    "diffdet.tomography.optimisation.data": "Passive volumes",
    "diffdet.tomography.plotting": "Plotting",
    "diffdet.tomography.imaging": "Imaging",
    "diffdet.tomography.io": "Tables of hits",
    "diffdet.tomography.benchmarks": "Worked problems",
    "diffdet.tomography": "Constants and utilities",
    "diffdet.nn": "Networks",
    "diffdet.runs": "Runs: configurations, folders, tasks",
    "diffdet.report": "Reports",
    "diffdet.cli": "Command line",
    "diffdet.loop": "Loop",
    "diffdet.kernels": "Kernels",
    "diffdet.core": "Core",
    "diffdet": "Package",
}
"""Packages that have a page, with its title; a module is on the page of the longest that holds it."""


def public_modules(source: Path) -> list[str]:
    """Names of all modules of the package ``source / "diffdet"`` without a leading underscore anywhere."""
    found = []
    for path in sorted((source / "diffdet").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return found


def page_of(module: str) -> str:
    """The package on whose page a module stands."""
    return max((p for p in PACKAGES if module == p or module.startswith(f"{p}.")), key=len)


def summary(path: Path) -> str:
    """First paragraph of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _file_of(module: str, source: Path) -> Path:
    path = source.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def page(package: str, modules: list[str]) -> str:
    """The page of a package, in Markdown."""
    lines = [f"# {PACKAGES[package]}", ""]
    for module in modules:
        lines += [f"## `{module}`", "", "```{eval-rst}", f".. automodule:: {module}", "```", ""]
    return "\n".join(lines)


def write_pages(folder: Path, source: Path) -> list[Path]:
    """Write all pages; files are touched only where they change, so that a second build is quick.

    Args:
        folder: Where to.
        source: Folder that holds the package.

    Returns:
        The pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_page: dict[str, list[str]] = {package: [] for package in PACKAGES}
    for module in public_modules(source):
        file = _file_of(module, source)
        if file.name != "__init__.py" or _has_content(file):
            by_page[page_of(module)].append(module)
    pages = []
    for number, (package, modules) in enumerate(by_page.items()):
        if not modules:
            continue
        path = folder / f"{number:02d}_{package.replace('.', '_')}.md"
        text = page(package, modules)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        pages.append(path)
    for path in set(folder.glob("*.md")) - set(pages):
        path.unlink()
    return pages


def _has_content(file: Path) -> bool:
    """Whether a package's file says more than one line about itself, or defines something."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign) for node in tree.body)
    return defines or "\n" in (ast.get_docstring(tree) or "")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""

    def build(app: Any) -> None:
        docs = Path(app.srcdir)
        write_pages(docs / "api" / "generated", docs.parent / "src")

    app.connect("builder-inited", build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
