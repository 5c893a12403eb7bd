"""Dense layers and stacks, of which every block is made."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks._dense import dense_layer, dense_stack
from diffdet.nn.models.blocks.body import FullyConnected, MultiBlock
from diffdet.nn.models.blocks.conv_blocks import Conv1DBlock, SEBlock1d
from diffdet.nn.models.initialisations import lookup_uniform_init


def names(layers):
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"act": "relu"}, ["Linear", "ReLU"]),
        ({"act": "linear"}, ["Linear"]),
        ({"act": "linear", "bn": True}, ["Linear", "BatchNorm1d"]),
        ({"act": "relu", "bn": True, "do": 0.1}, ["Linear", "ReLU", "BatchNorm1d", "Dropout"]),
        ({"act": "selu", "do": 0.1}, ["Linear", "SELU", "AlphaDropout"]),
        ({"act": "relu", "do": None}, ["Linear", "ReLU"]),
        ({"act": "relu", "bn": True, "objects": True}, ["Linear", "ReLU", "LCBatchNorm1d"]),
    ],
)
def test_what_a_layer_is_made_of(settings, expected):
    assert names(dense_layer(3, 4, **settings)) == expected


def test_keys_of_a_stack():
    stack = dense_stack(3, [4, 2], act="prelu", bn=True, objects=True)
    keys = [key for key in stack.state_dict() if not key.endswith(("running_mean", "running_var", "tracked"))]
    assert keys == [
        f"{i}.{rest}" for i in (0, 1) for rest in ("0.weight", "0.bias", "1.weight", "2.bn.weight", "2.bn.bias")
    ]


def test_weights_come_from_the_look_up_and_biases_are_zero():
    asked = []

    def look_up(act, fan_in, fan_out):
        asked.append((act, fan_in, fan_out))
        return lookup_uniform_init(act, fan_in, fan_out)

    stack = dense_stack(3, [4, 2], act="selu", lookup_init=look_up)
    assert asked == [("selu", 3, 4), ("selu", 4, 2)]
    assert all(bool((layer[0].bias == 0).all()) for layer in stack)


def test_an_activation_may_be_a_plain_function():
    layer = dense_layer(3, 4, act="relu", lookup_act=lambda act: torch.sin)
    x = torch.randn(5, 3)
    torch.testing.assert_close(layer(x), layer[0](x).sin())


def test_look_ups_of_a_user_may_know_other_names():
    settings = {"act": "sine", "lookup_act": lambda act: torch.sin, "lookup_init": lambda *fans: nn.init.ones_}
    assert bool((dense_layer(3, 4, **settings)[0].weight == 1).all())
    assert torch.isfinite(Conv1DBlock(3, 4, 3, **settings)(torch.randn(2, 3, 5))).all()
    assert torch.isfinite(SEBlock1d(3, 2, **settings)(torch.randn(2, 3, 5))).all()
    body = MultiBlock(
        3, {"a": [0], "b": [1, 2]}, [partial(FullyConnected, depth=1, width=2, act="sine")], [["a"]], 1, "sine",
        settings["lookup_init"], settings["lookup_act"],
    )  # fmt: skip
    assert body(torch.randn(4, 3)).abs().max() <= 1


def test_a_batch_norm_of_choice():
    layer = dense_layer(3, 4, act="relu", bn=True, bn_class=lambda n: nn.BatchNorm1d(n, eps=0.5))
    assert layer[2].eps == 0.5


def test_masked_objects_do_not_enter_the_batch_norms():
    stack = dense_stack(3, [4, 5], act="swish", bn=True, objects=True).double()
    twin = dense_stack(3, [4, 5], act="swish", bn=True).double()
    twin.load_state_dict({key.replace(".bn.", "."): value for key, value in stack.state_dict().items()})
    x, mask = torch.randn(4, 6, 3, dtype=torch.float64), torch.rand(4, 6) > 0.3
    found = stack(torch.where(mask.unsqueeze(-1), x, -7.0), mask)
    torch.testing.assert_close(found[mask], twin(x[mask]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_in": 0}, "`n_in` must be a whole number of at least 1; got 0"),
        ({"n_out": -1}, "`n_out` must be a whole number of at least 1; got -1"),
        ({"act": "relux"}, "Did you mean 'relu'?"),
        ({"do": 1.0}, "`do` must lie in [0, 1); got 1.0"),
        ({"do": -0.1}, "`do` must lie in [0, 1); got -0.1"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(InputError) as raised:
        dense_layer(**{"n_in": 3, "n_out": 4, "act": "relu", **settings})
    assert message in str(raised.value)
