"""Run the notebooks of examples/notebooks and write them, with all that they print and draw, to docs/tutorials.

Jupyter is not needed: the cells of a notebook are executed one after the other in one namespace, and a matplotlib
backend of our own collects the figures that they show.

usage: python docs/figures/notebooks.py [NAME...]        (without names all; SMOKE=1 for tiny sizes, --out FOLDER)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
TUTORIALS = ROOT / "docs" / "tutorials"

_DPI = 90
_COLOURS = 256
_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook."""

    kind: str
    """``"markdown"`` or ``"code"``."""
    source: str
    line: int
    """Line of the file that the source begins on."""


def read_cells(path: Path) -> list[Cell]:
    """Cells of a notebook in the percent format; its header is left out."""
    text = path.read_text(encoding="utf-8")
    heads = list(_CELL.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    cells = []
    for head, end in zip(heads, ends, strict=True):
        source = text[head.end() + 1 : end]
        line = text.count("\n", 0, head.end()) + 2
        kind = "markdown" if "[markdown]" in head[1] else "code"
        if kind == "markdown":
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        cells.append(Cell(kind, source.strip("\n"), line))
    return cells


def code_of_page(text: str) -> list[str]:
    """The code cells that a page of docs/tutorials shows, to compare with those of its notebook."""
    return re.findall(r"^```python\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


class Figures:
    """A matplotlib backend that keeps the pictures it is asked to show."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    def install(self) -> None:
        """Become matplotlib's backend."""
        import matplotlib as mpl
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        backend: Any = types.ModuleType("tutorial_figures")
        backend.FigureCanvas, backend.FigureManager, backend.show = FigureCanvasAgg, FigureManagerBase, self.show
        sys.modules[backend.__name__] = backend
        mpl.use(f"module://{backend.__name__}")

    def show(self, *_args: Any, **_options: Any) -> None:
        """Keep pictures of all open figures, and close them."""
        import matplotlib.pyplot as plt

        for number in plt.get_fignums():
            buffer = io.BytesIO()
            plt.figure(number).savefig(buffer, format="png", dpi=_DPI, facecolor="white")
            self.shown.append(_smaller(buffer.getvalue()))
        plt.close("all")


def _smaller(picture: bytes) -> bytes:
    """A picture with few colours, which half of the bytes hold."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            buffer, format="png", optimize=True
        )
    return buffer.getvalue()


def run(path: Path) -> Iterator[tuple[Cell, str, list[bytes]]]:
    """Run the cells of a notebook.

    Yields:
        Each cell with what it printed and the pictures it showed.
    """
    figures = Figures()
    figures.install()
    module: Any = types.ModuleType("__main__")
    for cell in read_cells(path):
        printed = io.StringIO()
        figures.shown = []
        if cell.kind == "code":
            code = compile("\n" * (cell.line - 1) + cell.source, str(path), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, vars(module))
        yield cell, printed.getvalue().rstrip(), figures.shown


def write_page(path: Path, folder: Path) -> float:
    """Run a notebook and write its page and its pictures.

    Args:
        path: The notebook.
        folder: Where to.

    Returns:
        Seconds that it ran for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{path.stem}_*.png"):
        old.unlink()
    parts, n_figures, begin = [], 0, time.perf_counter()
    for cell, printed, pictures in run(path):
        if cell.kind == "markdown":
            links = re.sub(r"\]\((\w+)\.py\)", r"](\1.md)", cell.source)
            parts.append(links.replace("](../../docs/", "](../"))
        else:
            parts.append(f"```python\n{cell.source}\n```")
        if printed:
            parts.append(f"```text\n{printed}\n```")
        for picture in pictures:
            n_figures += 1
            name = f"{path.stem}_{n_figures}.png"
            (folder / name).write_bytes(picture)
            parts.append(f"![Figure {n_figures} of {path.stem}]({name})")
    seconds = time.perf_counter() - begin
    head, _, rest = "\n\n".join(parts).partition("\n\n")
    note = f"*This page is `examples/notebooks/{path.name}`, run by `docs/figures/notebooks.py`.*"
    (folder / f"{path.stem}.md").write_text(f"{head}\n\n{note}\n\n{rest}\n", encoding="utf-8")
    return seconds


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, without suffix; all when none is named")
    parser.add_argument("--out", type=Path, default=TUTORIALS, help="folder of the pages")
    options = parser.parse_args()
    names = options.names or [path.stem for path in sorted(NOTEBOOKS.glob("*.py"))]
    folder = options.out.resolve()
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            seconds = write_page(NOTEBOOKS / f"{name}.py", folder)
            os.chdir(ROOT)
        print(f"{name}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
