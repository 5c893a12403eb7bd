"""Tails: activations and scales by objective."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.blocks.tail import ClassRegMulti, IdentTail

X = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4)


def tail(n_out=2, objective="regression", **settings):
    return ClassRegMulti(4, n_out, objective, **settings).double()


def test_classes_are_probabilities_each_for_itself():
    block = tail(objective="classification")
    torch.testing.assert_close(block(X), 1 / (1 + (-block.dense(X)).exp()))


def test_exclusive_classes_are_logarithms_that_sum_to_one():
    block = tail(3, "multiclass")
    torch.testing.assert_close(block(X).exp().sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(block(X).exp(), block.dense(X).exp() / block.dense(X).exp().sum(1, keepdim=True))


def test_regression_is_linear():
    block = tail()
    assert torch.equal(block(X), block.dense(X))


@pytest.mark.parametrize(
    ("y_range", "low", "high"),
    [
        ((10, 20), [10, 10], [20, 20]),
        ((20, 10), [10, 10], [20, 20]),
        (np.array([[-1, 3], [20.0, 10.0]]), [-1, 10], [3, 20]),
        (torch.tensor([[-1, 3], [10, 20]]), [-1, 10], [3, 20]),
    ],
)
def test_outputs_stay_within_a_range(y_range, low, high):
    block = tail(y_range=y_range)
    low, high = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    torch.testing.assert_close(block(X), low + (high - low) * block.dense(X).sigmoid())
    torch.testing.assert_close(block(1e4 * X.sign()).clamp(low, high), block(1e4 * X.sign()))


@pytest.mark.parametrize(("mean", "std"), [(5.0, 2.0), ([5.0, -1.0], [2, 3]), (np.array([[5.0, -1.0]]), np.array(2.0))])
def test_outputs_take_a_mean_and_a_deviation(mean, std):
    block = tail(y_mean=mean, y_std=std)
    expected = block.dense(X) * torch.as_tensor(np.asarray(std, dtype=float)) + torch.as_tensor(np.asarray(mean))
    torch.testing.assert_close(block(X), expected)


def test_a_range_scales_classes_too():
    torch.testing.assert_close(
        tail(objective="classification", y_range=(0, 2), bias_init=0.3)(0 * X)[0, 0],
        2 * torch.tensor(0.3, dtype=torch.float64).sigmoid(),
    )


@pytest.mark.parametrize(
    ("objective", "settings", "bias"),
    [
        ("classification", {}, 0),
        ("multiclass", {}, 1 / 3),
        ("regression", {}, 0),
        ("regression", {"y_range": (0, 1)}, 0),
        ("regression", {"bias_init": 0.7}, 0.7),
        ("multiclass", {"bias_init": 0.7}, 0.7),
    ],
)
def test_biases(objective, settings, bias):
    assert tail(3, objective, **settings).dense.bias.tolist() == pytest.approx([bias] * 3)


def test_biases_may_differ_by_output():
    assert tail(bias_init=[1.0, 2.0]).dense.bias.tolist() == [1, 2]


def test_bias_beside_a_mean_is_dropped_with_a_warning():
    with pytest.warns(UserWarning, match="`bias_init` is not used with `y_mean` and `y_std`"):
        block = tail(y_mean=1.0, y_std=2.0, bias_init=3.0)
    assert block.dense.bias.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("objective", "settings", "prior"),
    [
        ("classification", {}, 0.03),
        ("classification", {}, [0.03, 0.6]),
        ("multiclass", {}, [0.25, 0.75]),
        ("regression", {}, [3.0, -2.0]),
        ("regression", {"y_range": (10, 20)}, 12.0),
        ("regression", {"y_mean": 5.0, "y_std": 2.0}, 7.0),
    ],
)
def test_first_predictions_are_around_the_prior(objective, settings, prior):
    block = tail(2, objective, prior=prior, **settings)
    found = block(torch.zeros(1, 4, dtype=torch.float64))[0]
    found = found.exp() if objective == "multiclass" else found
    expected = torch.as_tensor(prior, dtype=torch.float64).expand(2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_bias_is_not_the_first_prediction_of_a_class():
    """Why there is `prior`: the customary `bias_init=mean(targets)` starts elsewhere."""
    block = tail(1, "classification", bias_init=0.03)
    assert block(0 * X)[0].item() == pytest.approx(1 / (1 + math.exp(-0.03)))


def test_scales_move_with_the_module_and_are_not_saved():
    for settings in ({"y_range": (1, 2)}, {"y_mean": 1.0, "y_std": 2.0}):
        block = ClassRegMulti(4, 2, "regression", **settings)
        assert list(block.state_dict()) == ["dense.weight", "dense.bias"]
        assert block(X.float()).dtype is torch.float32
        assert block.double()(X).dtype is torch.float64
        meta = block.to("meta")
        assert all(buffer.is_meta for buffer in meta.buffers())


def test_layers_by_index():
    block = tail()
    assert block[0] is block.dense
    assert block[1] is block.act
    assert list(block[:]) == [block.dense, block.act]
    with pytest.raises(IndexError):
        block[2]
    assert block.get_out_size() == 2


@pytest.mark.parametrize("objective", ["Classification", "multi-label classification", "MULTICLASS"])
def test_objectives_are_read_in_any_case(objective):
    assert type(ClassRegMulti(4, 2, objective).act).__name__ in ("Sigmoid", "LogSoftmax")


@pytest.mark.parametrize(
    ("objective", "meant"), [("binary", "classification"), ("multicalss", "multiclass"), ("regresion", "regression")]
)
def test_unknown_objectives_are_refused(objective, meant):
    for make in (ClassRegMulti, IdentTail):
        with pytest.raises(InputError, match=f"`objective` must be one of .*Did you mean '{meant}'"):
            make(2, 2, objective)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"y_range": (0, 1), "y_mean": 1.0, "y_std": 1.0}, InputError, "`y_range` excludes `y_mean` and `y_std`"),
        ({"y_range": (0, 1), "y_std": 1.0}, InputError, "`y_range` excludes"),
        ({"y_mean": 1.0}, InputError, "`y_std` must be given along with `y_mean`"),
        ({"y_std": 1.0}, InputError, "`y_mean` must be given along with `y_std`"),
        ({"y_mean": 1.0, "y_std": [1.0, 0.0]}, InputError, "`y_std` must be greater than 0"),
        ({"y_mean": [1.0, 2.0, 3.0], "y_std": 1.0}, ShapeError, "`y_mean` must be one number or one for each of 2"),
        ({"y_range": (1, 1)}, InputError, "`y_range` must have two different ends"),
        ({"y_range": (0, math.inf)}, InputError, "`y_range` must be finite"),
        ({"y_range": (0, 1, 2)}, ShapeError, r"`y_range` must have shape \(2\) or \(n_out = 2, 2\); got \(3,\)"),
        ({"bias_init": math.nan}, InputError, "`bias_init` must be finite"),
        ({"bias_init": [1.0] * 3}, ShapeError, "`bias_init` must be one number"),
        ({"bias_init": 1.0, "prior": 1.0}, InputError, "`prior` and `bias_init` exclude each other"),
        ({"y_range": (0, 1), "prior": 1.0}, InputError, r"`prior` must lie in \(0, 1\)"),
        ({"objective": "multiclass", "prior": [0.5, 0.6]}, InputError, "must be frequencies that sum to 1"),
        ({"n_out": 0}, InputError, "`n_out` must be a whole number"),
    ],
)
def test_bad_arguments_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        tail(**settings)


def test_the_identity_changes_nothing():
    block = IdentTail(4, 4, "regression")
    assert block(X) is X
    assert block.get_out_size() == 4
    with pytest.raises(InputError, match=r"`n_out` must be `n_in` = 4.*got 2"):
        IdentTail(4, 2, "regression")


def test_freezing_freezes_everything():
    assert ClassRegMulti(4, 2, "regression", freeze=True).get_param_count() == 0
