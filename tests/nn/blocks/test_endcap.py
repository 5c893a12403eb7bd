"""Endcaps: a function of a model's outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.endcap import AbsEndcap


class Net(nn.Linear):
    """A module with `predict`."""

    def predict(self, inputs, as_np=True):
        outputs = self(torch.as_tensor(inputs, dtype=self.weight.dtype))
        return outputs.detach().numpy() if as_np else outputs


class Ratio(AbsEndcap):
    """First output over the second."""

    def func(self, x):
        return x[:, :1] / x[:, 1:]


def test_forward_takes_outputs_that_are_there():
    x = torch.tensor([[6.0, 2.0], [1.0, 4.0]])
    assert Ratio(Net(3, 2))(x).tolist() == [[3], [0.25]]


def test_predict_runs_the_model():
    net = Net(3, 2).double()
    inputs = np.ones((4, 3))
    found = Ratio(net).predict(inputs)
    assert isinstance(found, np.ndarray)
    expected = net.predict(inputs)
    np.testing.assert_allclose(found, expected[:, :1] / expected[:, 1:])
    tensor = Ratio(net).predict(inputs, as_np=False)
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad


def test_the_model_is_not_a_part_of_the_endcap():
    net = Net(3, 2)
    endcap = Ratio(net)
    assert endcap.model is net
    assert list(endcap.parameters()) == []
    endcap.double()
    assert net.weight.dtype is torch.float32


def test_what_cannot_predict_is_refused():
    with pytest.raises(InputError, match="`model` must have a method `predict`; got Linear"):
        Ratio(nn.Linear(2, 2))


def test_an_endcap_needs_its_function():
    with pytest.raises(TypeError, match="func"):
        AbsEndcap(Net(3, 2))
