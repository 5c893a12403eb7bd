"""Claims about the exceptions: one tree, and each is also what Python calls such a problem."""

from __future__ import annotations

import inspect

import pytest

from diffdet.core import errors
from diffdet.core.extras import require


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("InputError", ValueError),
        ("ShapeError", errors.InputError),
        ("GeometryError", errors.InputError),
        ("NoHitsError", errors.DiffdetError),
        ("NotSupportedError", errors.DiffdetError),
        ("StorageError", OSError),
        ("FileDamagedError", errors.StorageError),
        ("LockedError", errors.StorageError),
        ("CheckpointError", errors.DiffdetError),
        ("VersionError", errors.CheckpointError),
        ("MissingExtraError", ImportError),
        ("NonFiniteError", ArithmeticError),
        ("PhysicsWarning", UserWarning),
        ("NoMuonsWarning", errors.PhysicsWarning),
        ("GeometryWarning", errors.PhysicsWarning),
    ],
)
def test_bases(name, base):
    assert issubclass(getattr(errors, name), base)


def test_every_exception_is_in_one_tree_and_in_the_page():
    for name, thing in inspect.getmembers(errors, inspect.isclass):
        if issubclass(thing, Exception) and thing.__module__ == errors.__name__:
            root = errors.PhysicsWarning if issubclass(thing, Warning) else errors.DiffdetError
            assert issubclass(thing, root)
            assert name in (errors.__doc__ or "") or thing is errors.DiffdetError


def test_missing_extra_ends_with_the_command():
    with pytest.raises(errors.MissingExtraError) as info:
        require("no_such_module_at_all", "root", "reading ROOT files")
    assert str(info.value) == 'reading ROOT files needs: pip install "diffdet[root]"'
    assert info.value.extra == "root"
    assert require("math", "root", "counting").pi > 3


def test_a_broken_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as info:
        require("half_installed", "root", "reading ROOT files")
    assert not isinstance(info.value, errors.MissingExtraError)


def test_non_finite_carries_details():
    error = errors.NonFiniteError("loss is nan", {"muons": [3]})
    assert error.details == {"muons": [3]}
    assert errors.NonFiniteError("x").details == {}
