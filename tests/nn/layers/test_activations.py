"""Activations by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.layers.activations import ACTIVATIONS, Swish, lookup_act
from diffdet.nn.models.layers.mish import Mish
from nn.numeric_cases import TOLERANCE, Case


def test_reference_values(shared_dir, dtype):
    case = Case.load(shared_dir, "lookup_act")
    for name, expected in case.entry["outputs"].items():
        found = lookup_act(name).to(dtype)(case.input(dtype))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("swish", lambda x: x / (1 + (-x).exp())),
        ("silu", lambda x: x / (1 + (-x).exp())),
        ("mish", lambda x: x * (1 + x.exp()).log().tanh()),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("elu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("linear", lambda x: x),
    ],
)
def test_formulas(name, formula, dtype):
    x = torch.linspace(-4, 4, 33, dtype=dtype).reshape(3, 11)
    torch.testing.assert_close(lookup_act(name)(x), formula(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_name_gives_a_layer_with_gradients(name):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    layer = lookup_act(name).double()
    assert isinstance(layer, nn.Module)
    assert torch.autograd.gradcheck(layer, (x,))


def test_any_name_with_swish_is_swish():
    assert isinstance(lookup_act("my_swish_2"), Swish)


def test_every_call_gives_a_layer_of_its_own():
    assert lookup_act("prelu") is not lookup_act("prelu")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("reul", "relu"), ("ReLU", "relu"), ("sigmiod", "sigmoid"), ("geluu", "gelu")],
)
def test_unknown_activations_are_refused_with_the_choices(name, meant):
    with pytest.raises(InputError) as raised:
        lookup_act(name)
    message = str(raised.value)
    assert message.startswith("`act` must be one of 'relu', 'prelu', ")
    assert f"Did you mean {meant!r}?" in message


@pytest.mark.parametrize("name", [None, 3, nn.ReLU])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="`act` must be one of"):
        lookup_act(name)


def test_swish_can_work_in_place():
    x = torch.randn(5)
    before = x.clone()
    assert Swish(inplace=True)(x) is x
    torch.testing.assert_close(x, Swish()(before))
    leaf = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Swish(inplace=True)(2 * x), (leaf,))
    assert repr(Swish(inplace=True)) == "Swish(inplace=True)"
    assert repr(Swish()) == "Swish()"


def test_mish_is_finite_far_out(dtype):
    x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype, requires_grad=True)
    y = Mish()(x)
    y.sum().backward()
    assert y.tolist() == pytest.approx([0, 0, 0, 100, 1e4], abs=1e-6)
    assert x.grad.tolist() == pytest.approx([0, 0, 0.6, 1, 1], abs=1e-6)
