"""Initial weights have the variance that their activation asks for."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.models.initialisations import fans, lookup_normal_init, lookup_uniform_init
from diffdet.nn.models.layers.activations import ACTIVATIONS
from nn.numeric_cases import Case

BOTH = [lookup_normal_init, lookup_uniform_init]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def variance(act, n, m):
    """The documented table."""
    if act == "selu":
        return 1 / n
    return 2 / (n + m) if act in ("sigmoid", "tanh", "softmax", "logsoftmax", "linear") else 2 / n


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_reference_widths(shared_dir, kind):
    entry = Case.load(shared_dir, "lookup_init").entry
    lookup = {"normal": lookup_normal_init, "uniform": lookup_uniform_init}[kind]
    for act, measured in entry["measured"][kind].items():
        weight = torch.empty(entry["weight_shape"], dtype=torch.float64)
        lookup(act, entry["fan_in"], entry["fan_out"], generator=generator())(weight)
        # uniform weights for selu are the documented exception: their variance is three times that of the original
        factor = math.sqrt(3) if (kind, act) == ("uniform", "selu") else 1
        # 240,000 numbers: the standard error of a width is 0.15 %; both sides have it; four of the combined one
        assert weight.std().item() == pytest.approx(factor * measured["std"], rel=4 * math.sqrt(2) * 0.0015)
        assert abs(weight.mean().item()) < 4 * measured["std"] * factor / math.sqrt(weight.numel())
        if kind == "uniform":
            assert weight.abs().max().item() == pytest.approx(factor * measured["absmax"], rel=1e-3)


@pytest.mark.parametrize("lookup", BOTH)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_variance(lookup, act):
    weight = torch.empty(300, 500, dtype=torch.float64)
    assert lookup(act, 500, 300, generator=generator())(weight) is weight
    # 150,000 numbers: the standard error of a variance is below 0.4 %
    assert weight.var().item() == pytest.approx(variance(act, 500, 300), rel=0.016)


def test_uniform_weights_have_the_variance_of_normal_ones():
    weights = [lookup("selu", 400, generator=generator())(torch.empty(600, 400)) for lookup in BOTH]
    assert weights[0].std().item() == pytest.approx(weights[1].std().item(), rel=0.01)
    assert weights[1].abs().max().item() == pytest.approx(math.sqrt(3 / 400), rel=1e-3)


@pytest.mark.parametrize("lookup", BOTH)
def test_signals_keep_their_size_through_twenty_layers_of_selu(lookup):
    x = torch.randn(200, 256, dtype=torch.float64, generator=generator(1))
    draws = generator()
    for _ in range(20):
        weight = lookup("selu", 256, 256, generator=draws)(torch.empty(256, 256, dtype=torch.float64))
        x = torch.selu(x @ weight.T)
    assert 0.7 < x.std().item() < 1.3


@pytest.mark.parametrize("lookup", BOTH)
def test_kernels_count_into_the_fans(lookup):
    weight = torch.empty(64, 32, 5, dtype=torch.float64)
    assert fans(weight) == (160, 320)
    for act in ("relu", "selu", "linear"):
        lookup(act, generator=generator())(weight)
        assert weight.var().item() == pytest.approx(variance(act, 160, 320), rel=0.06)  # 10,240 numbers, 4 sigma


@pytest.mark.parametrize("lookup", BOTH)
def test_the_generator_decides(lookup):
    first, again, other = (lookup("relu", generator=generator(s))(torch.empty(4, 3)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(5)
    first = lookup("relu")(torch.empty(4, 3))
    torch.manual_seed(5)
    assert torch.equal(first, lookup("relu")(torch.empty(4, 3)))


@pytest.mark.parametrize("lookup", BOTH)
def test_parameters_keep_their_gradient_and_their_dtype(lookup, dtype):
    weight = torch.nn.Parameter(torch.empty(4, 3, dtype=dtype))
    lookup("relu")(weight)
    assert weight.requires_grad
    assert weight.grad_fn is None
    assert weight.dtype is dtype


@pytest.mark.parametrize("lookup", BOTH)
def test_bad_input_is_refused(lookup):
    with pytest.raises(InputError, match=r"`act` must be one of .* Did you mean 'sigmoid'\?"):
        lookup("sigmod")
    with pytest.raises(InputError, match=r"`weight` must have at least 2 axes .*; got shape \(3,\)"):
        lookup("relu")(torch.empty(3))
