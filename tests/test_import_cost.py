"""What importing costs: torch and nothing heavier; the help of the command line not even torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from house import inside, modules

HEAVIER = (
    "matplotlib",
    "seaborn",
    "pandas",
    "h5py",
    "scipy",
    "sklearn",
    "uproot",
    "awkward",
    "pyarrow",
    "plotly",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pydantic",
    "yaml",
)


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Names of the packages that a fresh interpreter has loaded after running some code."""
    tail = "\nimport json, sys; print('LOADED', json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


def test_import_of_the_package_is_light():
    assert not loaded_after("import diffdet") & set(HEAVIER)


def test_import_of_every_module_below_the_leaves_loads_nothing_heavier_than_torch():
    leaves = ("diffdet.runs", "diffdet.report", "diffdet.cli", "diffdet.tomography.plotting")
    names = [name for name in modules() if not any(inside(name, leaf) for leaf in leaves)]
    loaded = loaded_after(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert "torch" in loaded
    assert not loaded & set(HEAVIER)


COMMAND_LINE = """
import sys
from diffdet.cli.main import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
assert not status, status
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["optimise", "--help"],
        ["simulate", "--help"],
        ["image", "--help"],
        ["config", "--help"],
        ["report", "--help"],
        ["doctor", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_version_load_no_torch(arguments):
    loaded = loaded_after(COMMAND_LINE, *arguments)
    assert not loaded & {"torch", "numpy", "pydantic", *HEAVIER}
