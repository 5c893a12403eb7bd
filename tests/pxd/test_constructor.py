"""The constructor: documented defaults, types of errors, and nothing loaded."""

from __future__ import annotations

import inspect
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from diffdet.core.errors import CheckpointError, DiffdetError, InputError
from diffdet.overlay.basf2 import Basf2MissingError, seed_from_text
from diffdet.overlay.sensors import PXD
from diffdet.pxd.background_generator import VXDID_ARGS, PXDBackgroundGenerator, inject_simulation, models


def test_defaults_become_attributes():
    module = PXDBackgroundGenerator()
    found = (module.model, module.checkpoint, module.seed, module.nintra, module.ninter, module.globaltag)
    assert found == ("convnet", None, None, 1, 1, "PXDBackgroundGenerator")
    assert list(inspect.signature(PXDBackgroundGenerator).parameters)[:6] == [
        "model", "checkpoint", "seed", "nintra", "ninter", "globaltag",
    ]  # fmt: skip
    assert isinstance(module, PXDBackgroundGenerator.__mro__[1])
    assert PXDBackgroundGenerator.__mro__[1].__name__ == "Module"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("model", 3),
        ("model", None),
        ("model", b"convnet"),
        ("checkpoint", 3),
        ("checkpoint", b"file"),
        ("checkpoint", pathlib.PurePosixPath("/a")),
        ("seed", 1.0),
        ("seed", "1"),
        ("seed", np.int64(1)),
        ("seed", True),
        ("nintra", 1.0),
        ("nintra", None),
        ("nintra", True),
        ("ninter", "1"),
        ("ninter", None),
        ("globaltag", None),
        ("globaltag", 1),
    ],
)
def test_wrong_types_are_type_errors(argument, value):
    with pytest.raises(TypeError, match=f"`{argument}`") as caught:
        PXDBackgroundGenerator(**{argument: value})
    assert not isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DiffdetError)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("model", "convnets"),
        ("model", ""),
        ("checkpoint", "/nowhere/at/all.pt"),
        ("checkpoint", pathlib.Path("/nowhere/at/all.pt")),
        ("checkpoint", "~/all.pt"),
        ("checkpoint", "/"),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("nintra", 0),
        ("nintra", -1),
        ("ninter", 0),
    ],
)
def test_wrong_values_are_value_errors(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`") as caught:
        PXDBackgroundGenerator(**{argument: value})
    assert not isinstance(caught.value, TypeError)


def test_unknown_models_are_refused_with_the_options_and_the_nearest():
    with pytest.raises(InputError, match=r"'convnet', 'resnet'.*Did you mean 'resnet'"):
        PXDBackgroundGenerator("resnt")


def test_arguments_are_checked_in_their_order():
    with pytest.raises(InputError, match="`model`"):
        PXDBackgroundGenerator("nothing", 3, "x", 0, 0, 0)
    with pytest.raises(TypeError, match="`checkpoint`"):
        PXDBackgroundGenerator("convnet", 3, "x", 0, 0, 0)
    with pytest.raises(TypeError, match="`seed`"):
        PXDBackgroundGenerator("convnet", None, "x", 0, 0, 0)


def test_ends_of_the_seeds_are_taken():
    assert PXDBackgroundGenerator(seed=2**63 - 1).seed == 2**63 - 1
    assert PXDBackgroundGenerator(seed=-(2**63)).seed == -(2**63)


def test_variables_of_the_environment_are_filled_in_and_home_is_not(tmp_path, monkeypatch):
    (tmp_path / "w.pt").write_bytes(b"anything: the content is looked at later")
    monkeypatch.setenv("WEIGHTS_HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("$WEIGHTS_HERE/w.pt", "${WEIGHTS_HERE}/w.pt", tmp_path / "w.pt", pathlib.Path("$WEIGHTS_HERE/w.pt")):
        found = PXDBackgroundGenerator(checkpoint=given).checkpoint
        assert found == str(tmp_path / "w.pt")
        assert type(found) is str
    with pytest.raises(ValueError, match="`checkpoint`"):
        PXDBackgroundGenerator(checkpoint="~/w.pt")


@pytest.mark.parametrize(
    ("text", "seed"),
    [("", -3493701266030217027), ("12345", 3902246593939837825), ("belle2", 7204239738885117709)],
)
def test_seeds_of_texts(text, seed):
    assert seed_from_text(text) == seed


def test_numbers_of_the_forty_sensors():
    assert len(VXDID_ARGS) == 40
    assert VXDID_ARGS[0] == (1, 1, 1)
    assert VXDID_ARGS[16] == (2, 1, 1)
    assert VXDID_ARGS[39] == (2, 12, 2)
    assert list(VXDID_ARGS) == [(s.layer, s.ladder, s.sensor) for s in PXD]
    assert models.MODELS[:2] == ["convnet", "resnet"]


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from diffdet.pxd.background_generator import PXDBackgroundGenerator
from diffdet.pxd.background_generator.models import MODELS
for model in MODELS:
    module = PXDBackgroundGenerator(model, seed=1)
try:
    module.initialize()
except ImportError as error:
    assert "pip install torch" in str(error), error
else:
    raise SystemExit("no error")
"""


def test_the_module_is_made_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_outside_basf2_injection_says_what_it_needs():
    with pytest.raises(Basf2MissingError, match="b2setup"):
        inject_simulation()
    with pytest.raises(TypeError, match="`module`"):
        inject_simulation(3)


def test_without_weights_the_error_says_how_to_get_some():
    with pytest.raises(CheckpointError, match=r"PXDBackgroundGenerator_resnet.*DIFFDET_PXD_PAYLOADS.*'clusters'"):
        PXDBackgroundGenerator("resnet").initialize()


def test_events_before_initialize_are_refused():
    with pytest.raises(InputError, match="`initialize`"):
        PXDBackgroundGenerator("clusters").event()
    with pytest.raises(InputError, match="`initialize`"):
        PXDBackgroundGenerator("clusters").describe()
