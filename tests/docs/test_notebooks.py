"""Every notebook runs from its first cell to its last, and its page in the documentation shows the same code."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def reader():
    """The script that runs notebooks and writes their pages."""
    file = ROOT / "docs" / "figures" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("docs_notebooks", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _nothing_left_behind():
    """What a notebook sets for its process is set back."""
    import matplotlib as mpl

    dtype, threads, backend = torch.get_default_dtype(), torch.get_num_threads(), mpl.get_backend()
    mpl.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
    mpl.use(backend)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_nothing_left_behind")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_as_a_script(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert "nan" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a notebook writes to a folder of its own, not to where it is started"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_page_shows_the_code_of_the_notebook(path, reader):
    page = ROOT / "docs" / "tutorials" / f"{path.stem}.md"
    shown = reader.code_of_page(page.read_text(encoding="utf-8"))
    cells = [cell.source for cell in reader.read_cells(path) if cell.kind == "code"]
    assert shown == cells, f"run `python docs/figures/notebooks.py {path.stem}`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_begins_with_a_title_and_can_be_made_small(path, reader):
    cells = reader.read_cells(path)
    assert cells[0].kind == "markdown"
    assert cells[0].source.startswith("# ")
    assert sum(cell.kind == "markdown" for cell in cells) >= 5
    assert any("SMOKE = " in cell.source for cell in cells)
