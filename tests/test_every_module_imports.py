"""Every module imports on its own, also where no extra is installed."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

from house import modules

EXTRAS = (
    *("uproot", "awkward", "pyarrow", "hist", "mplhep", "scipy", "plotly", "trimesh", "optuna", "cmaes"),
    *(
        "onnx",
        "onnxscript",
        "onnxruntime",
        "tensorboard",
        "numba",
        "pandas",
        "beartype",
        "hypothesis",
        "particle",
        "pytest",
    ),
)

WITHOUT_EXTRAS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {names!r}:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("name", modules())
def test_module_imports_and_its_examples_run(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_every_module_imports_without_extras_in_both_orders(order):
    names = list(modules()) if order == "forwards" else list(modules())[::-1]
    code = WITHOUT_EXTRAS.format(extras=EXTRAS, names=names)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
