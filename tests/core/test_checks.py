"""Claims about checks: they name the argument, what was expected and what was given, and let good values pass."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffdet.core import checks
from diffdet.core.errors import InputError, ShapeError


@pytest.mark.parametrize("good", [1e-300, 3, 2.5, torch.tensor(1.0), torch.tensor([1, 2]), torch.ones(0)])
def test_positive_passes(good):
    assert checks.check_positive("x", good) is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (0, "greater than 0; got 0"),
        (-1.5, "greater than 0; got -1.5"),
        (math.nan, "be finite; got nan"),
        (math.inf, "be finite; got inf"),
        (True, "real number; got True of type bool"),
        ("3", "real number; got '3' of type str"),
        (None, "real number; got None"),
        (torch.tensor([1.0, -2.0]), r"greater than 0; got \[1.0, -2.0\]"),
        (torch.linspace(-1, 1, 50), r"got a tensor of shape \(50,\) from -1 to 1"),
        (torch.tensor([True]), "dtype torch.bool"),
    ],
)
def test_not_positive_is_refused(bad, said):
    with pytest.raises(InputError, match=f"`x` must .*{said}"):
        checks.check_positive("x", bad)


def test_finite_tells_how_many_and_where():
    values = torch.zeros(4, 3)
    values[2, 1] = math.nan
    values[3, 0] = math.inf
    with pytest.raises(
        InputError, match=r"`hits` must be finite; 2 of 12 elements are not, the first at index \(2, 1\): nan"
    ):
        checks.check_finite("hits", values)


@given(st.floats(-10, 10), st.booleans(), st.booleans())
def test_range_agrees_with_comparisons(value, low_open, high_open):
    inside = (value > -1 if low_open else value >= -1) and (value < 2 if high_open else value <= 2)
    options = {"low_open": low_open, "high_open": high_open, "unit": "m"}
    if inside:
        assert checks.check_in_range("x", value, -1, 2, **options) is None
    else:
        bounds = f"{'(' if low_open else '['}-1, 2{')' if high_open else ']'} m; got {value!r}"
        with pytest.raises(InputError, match=re.escape(bounds)):
            checks.check_in_range("x", value, -1, 2, **options)


def test_choice_lists_choices_and_names_the_nearest():
    checks.check_choice("kind", "sgd", ["sgd", "adam"])
    with pytest.raises(InputError, match=r"`kind` must be one of 'sgd', 'adam'; got 'Adm'. Did you mean 'adam'\?"):
        checks.check_choice("kind", "Adm", ["sgd", "adam"])
    with pytest.raises(InputError, match=r"got 17$"):
        checks.check_choice("kind", 17, ["sgd", "adam"])


def test_shape_passes_and_tells_sizes():
    assert checks.check_shape("x", torch.zeros(7, 3), "muon 3") == {"muon": 7}
    assert checks.check_shape("x", torch.zeros(2, 5, 7, 3), "*batch muon 3") == {"muon": 7}
    assert checks.check_shape("x", torch.zeros(3), "*batch 3") == {}
    assert checks.check_shape("x", torch.zeros(()), "") == {}
    assert checks.check_shape("x", torch.zeros(4, 4), "c c") == {"c": 4}


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((7, 4), "muon 3"), ((7,), "muon 3"), ((1, 7, 3), "muon 3"), ((4, 5), "c c"), ((), "*batch 3"), ((2,), "")],
)
def test_wrong_shape_is_refused(shape, spec):
    with pytest.raises(ShapeError, match="`x` must have shape") as info:
        checks.check_shape("x", torch.zeros(shape), spec)
    assert f"got {shape}" in str(info.value)


def test_shape_of_no_tensor_is_refused():
    with pytest.raises(InputError, match=r"`x` must be a tensor of shape .*; got list"):
        checks.check_shape("x", [1, 2], "muon")  # type: ignore[arg-type]


def test_same_device():
    a, b = torch.zeros(1), torch.zeros(1, device="meta")
    assert checks.check_same_device(a=a, b=a) is None
    with pytest.raises(InputError, match="`a` on cpu, `b` on meta"):
        checks.check_same_device(a=a, b=b)


@given(st.integers(1, 10**5), st.sampled_from([0.1, 0.05, 0.01, 1 / 3, 1.0]))
def test_multiples_pass_after_rounding_to_float32(count, unit):
    length = torch.tensor(count * unit, dtype=torch.float32).item()
    assert checks.check_multiple("lw", length, unit, "size") == count


@pytest.mark.parametrize(
    ("length", "said"),
    [(1.05, "10.5 times it. Nearest: 1 or 1.1"), (0.04, "0.4 times it. Nearest: 0.1"), (1.0001, "Nearest: 1 or 1.1")],
)
def test_no_multiple_is_refused(length, said):
    with pytest.raises(InputError, match=rf"`lw` must be a whole multiple of `size` = 0.1; got {length}.*{said}"):
        checks.check_multiple("lw", length, 0.1, "size")


@pytest.mark.parametrize(("length", "unit", "name"), [(0.0, 0.1, "lw"), (1.0, -0.1, "size"), (math.nan, 0.1, "lw")])
def test_multiple_of_nonsense_is_refused(length, unit, name):
    with pytest.raises(InputError, match=f"`{name}` must be"):
        checks.check_multiple("lw", length, unit, "size")


@pytest.mark.parametrize(
    ("word", "hint"), [("led", ". Did you mean 'lead'?"), ("LEAD", ". Did you mean 'lead'?"), ("zzz", "")]
)
def test_did_you_mean(word, hint):
    assert checks.did_you_mean(word, ["lead", "iron"]) == hint
