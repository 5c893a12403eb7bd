"""Convolutions over objects, squeeze and excitation, pooling."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.conv_blocks import (
    AdaptiveAvgMaxConcatPool1d,
    AdaptiveAvgMaxConcatPool2d,
    AdaptiveAvgMaxConcatPool3d,
    Conv1DBlock,
    Res1DBlock,
    ResNeXt1DBlock,
    SEBlock1d,
    SEBlock2d,
    SEBlock3d,
)
from diffdet.nn.models.layers.activations import ACTIVATIONS
from diffdet.nn.models.layers.batchnorms import RunningBatchNorm1d


def res_next(in_c, out_c, kernel_sz, **settings):
    return ResNeXt1DBlock(in_c, 2, 3, out_c, kernel_sz, **settings)


BLOCKS = [Conv1DBlock, Res1DBlock, res_next]


def slow_conv(conv, x, before, after, stride, groups=1):
    """A convolution with zeros around the columns, one number at a time."""
    batch, in_c, length = x.shape
    out_c, per_group, k = conv.weight.shape
    padded = torch.zeros(batch, in_c, length + before + after, dtype=x.dtype)
    padded[:, :, before : before + length] = x
    columns = (padded.shape[2] - k) // stride + 1
    y = torch.empty(batch, out_c, columns, dtype=x.dtype)
    for o in range(out_c):
        first = o // (out_c // groups) * per_group
        for j in range(columns):
            seen = padded[:, first : first + per_group, j * stride : j * stride + k]
            y[:, o, j] = (seen * conv.weight[o]).sum((1, 2)) + conv.bias[o]
    return y


@pytest.mark.parametrize("kernel_sz", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@torch.no_grad()
def test_convolution_equals_the_slow_twin(kernel_sz, stride):
    block = Conv1DBlock(3, 4, kernel_sz, stride=stride, act="relu").double()
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    expected = slow_conv(block.layers[0], x, (kernel_sz - 1) // 2, kernel_sz // 2, stride).clamp_min(0)
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_groups_equal_the_slow_twin():
    block = res_next(3, 5, 3, stride=2, act="tanh").double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    h = slow_conv(block.layers[0][1], x.tanh(), 0, 0, 2)
    h = slow_conv(block.layers[1][1], h.tanh(), 1, 1, 1, groups=3)
    h = slow_conv(block.layers[2][1], h.tanh(), 0, 0, 1)
    torch.testing.assert_close(block(x), h + slow_conv(block.shortcut, x, 0, 0, 2))


@torch.no_grad()
def test_residual_equals_the_slow_twin():
    block = Res1DBlock(3, 3, 3, act="tanh").double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    h = slow_conv(block.layers[0][1], x.tanh(), 1, 1, 1)
    torch.testing.assert_close(block(x), x + slow_conv(block.layers[1][1], h.tanh(), 1, 1, 1))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_automatic_padding_keeps_the_columns(block, length):
    for kernel_sz in (1, 2, 3, 4, 5, 6):
        for stride in (1, 2, 3):
            y = block(3, 4, kernel_sz, stride=stride)(torch.randn(2, 3, length))
            assert y.shape == (2, 4, math.ceil(length / stride)), (kernel_sz, stride)


def test_padding_by_number_gives_the_old_shape_of_even_kernels():
    assert Conv1DBlock(3, 4, 4, padding=2)(torch.randn(2, 3, 10)).shape[2] == 11
    assert Conv1DBlock(3, 4, 3, padding=0)(torch.randn(2, 3, 10)).shape[2] == 8


@pytest.mark.parametrize("block", [Res1DBlock, res_next])
def test_short_cut_and_layers_fit(block):
    x = torch.randn(2, 3, 10)
    for kernel_sz in (1, 2, 3, 4, 5):
        assert block(3, 3, kernel_sz)(x).shape == x.shape
    assert block(3, 3, 5, padding=2)(x).shape == x.shape
    for kernel_sz, padding, hint in ((3, 0, "'auto' or 1"), (3, 2, "'auto' or 1"), (4, 2, "'auto'")):
        with pytest.raises(InputError, match=f"`padding` must be {hint} for a kernel of {kernel_sz} columns"):
            block(3, 3, kernel_sz, padding=padding)


@pytest.mark.parametrize("block", [Res1DBlock, res_next])
def test_a_short_cut_is_a_convolution_where_shapes_change_only(block):
    assert block(3, 3, 3).shortcut is None
    for changed in (block(3, 4, 3), block(3, 3, 3, stride=2)):
        assert changed.shortcut.kernel_size == (1,)
        assert list(changed.state_dict())[-2:] == ["shortcut.weight", "shortcut.bias"]


def test_short_cut_starts_from_the_look_up():
    asked = []

    def ones(act, fan_in, fan_out):
        asked.append((act, fan_in, fan_out))
        return nn.init.ones_

    block = Res1DBlock(3, 4, 3, act="relu", lookup_init=ones)
    assert asked == [("relu", 9, 12), ("relu", 12, 12), ("linear", 3, 4)]
    assert bool((block.shortcut.weight == 1).all())
    assert bool((block.shortcut.bias == 0).all())


def test_groups_count_into_the_fans():
    asked = []

    def look_up(act, fan_in, fan_out):
        asked.append((fan_in, fan_out))
        return nn.init.zeros_

    ResNeXt1DBlock(8, 2, 3, 8, 5, lookup_init=look_up)
    assert asked == [(8, 6), (10, 10), (6, 8)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("act", [act for act in ACTIVATIONS if "softmax" not in act])
def test_every_activation_can_be_used(block, act):
    y = block(3, 4, 3, act=act, bn=True)(torch.randn(4, 3, 6))
    assert torch.isfinite(y).all()


@pytest.mark.parametrize(
    ("block", "bn", "act", "expected"),
    [
        (Conv1DBlock, True, "relu", ["Conv1d", "ReLU", "BatchNorm1d"]),
        (Conv1DBlock, False, "linear", ["Conv1d"]),
        (Res1DBlock, True, "relu", ["BatchNorm1d", "ReLU", "Conv1d"]),
        (Res1DBlock, False, "relu", ["ReLU", "Conv1d"]),
        (Res1DBlock, True, "linear", ["BatchNorm1d", "Conv1d"]),
    ],
)
def test_order_of_layers(block, bn, act, expected):
    made = block(3, 3, 3, bn=bn, act=act).layers
    assert [type(part).__name__ for part in (made if block is Conv1DBlock else made[0])] == expected


def test_channels_of_batch_norms():
    block = Res1DBlock(3, 5, 3, bn=True, bn_class=RunningBatchNorm1d)
    assert [layer[0].nf for layer in block.layers] == [3, 5]
    assert Conv1DBlock(3, 5, 3, bn=True).layers[2].num_features == 5


class TwoConvolutions(Conv1DBlock):
    """A user's own block, by the documented methods."""

    def set_layers(self):
        self.layers = nn.Sequential(
            self.get_conv_layer(self.in_c, 6, self.kernel_sz, pre_act=True),
            self.get_conv_layer(6, self.out_c, self.kernel_sz, padding=self.get_padding(self.kernel_sz), groups=2),
        )


def test_users_can_derive():
    assert TwoConvolutions(3, 4, 3, bn=True)(torch.randn(2, 3, 7)).shape == (2, 4, 7)


@pytest.mark.parametrize("block", BLOCKS)
def test_inputs_need_not_be_contiguous(block):
    made = block(3, 4, 3, bn=True).eval()
    x = torch.randn(2, 7, 3).transpose(1, 2)
    torch.testing.assert_close(made(x), made(x.contiguous()))


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_everywhere(block):
    made = block(3, 4, 3, stride=2, bn=True, act="swish")
    made(torch.randn(4, 3, 7)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"act": "swsh"}, "Did you mean 'swish'?"),
        ({"padding": "same"}, "`padding` must be 'auto' or a number of columns; got 'same'"),
        ({"padding": -1}, "`padding` must be a whole number of at least 0; got -1"),
        ({"kernel_sz": 0}, "`kernel_sz` must be a whole number of at least 1; got 0"),
        ({"stride": 0}, "`stride` must be a whole number of at least 1; got 0"),
        ({"in_c": 0}, "`in_c` must be a whole number of at least 1; got 0"),
        ({"out_c": 1.5}, "`out_c` must be a whole number of at least 1; got 1.5"),
    ],
)
@pytest.mark.parametrize("block", [Conv1DBlock, Res1DBlock, partial(ResNeXt1DBlock, inter_c=2, cardinality=2)])
def test_bad_arguments_are_refused(block, arguments, message):
    with pytest.raises(InputError) as raised:
        block(**{"in_c": 3, "out_c": 4, "kernel_sz": 3, **arguments})
    assert message in str(raised.value)


def test_groups_and_even_kernels_without_meaning_are_refused():
    with pytest.raises(InputError, match=r"`groups` must divide `in_c` = 3 and `out_c` = 4; got 2"):
        Conv1DBlock(3, 4, 3).get_conv_layer(3, 4, 3, groups=2)
    with pytest.raises(InputError, match=r"`kernel_sz` must be odd .*; got 4"):
        Conv1DBlock.get_padding(4)
    assert [Conv1DBlock.get_padding(k) for k in (1, 3, 5)] == [0, 1, 2]
    with pytest.raises(InputError, match="`cardinality` must be a whole number of at least 1; got 0"):
        ResNeXt1DBlock(3, 2, 0, 3, 3)


# --- channels and columns ---

SHAPES = [
    (SEBlock1d, AdaptiveAvgMaxConcatPool1d, (6,)),
    (SEBlock2d, AdaptiveAvgMaxConcatPool2d, (4, 6)),
    (SEBlock3d, AdaptiveAvgMaxConcatPool3d, (4, 2, 6)),
]


@pytest.mark.parametrize(("make", "_pool", "positions"), SHAPES)
def test_channels_are_weighed_by_their_means(make, _pool, positions):
    block = make(5, 2, act="swish").double()
    x = torch.randn(3, 5, *positions, dtype=torch.float64)
    means = torch.stack([torch.stack([channel.mean() for channel in event]) for event in x])
    first, second = block.layers[0], block.layers[2]
    assert first.out_features == 2
    hidden = nn.functional.silu(means @ first.weight.T + first.bias)
    factor = 1 / (1 + (-(hidden @ second.weight.T + second.bias)).exp())
    expected = torch.stack(
        [torch.stack([f * c for f, c in zip(*pair, strict=True)]) for pair in zip(factor, x, strict=True)]
    )
    torch.testing.assert_close(block(x), expected)
    assert torch.autograd.gradcheck(block, (x[:1, :, :2].clone().requires_grad_(),))


def test_the_narrow_layer_has_two_channels_at_least():
    assert SEBlock1d(3, 16).layers[0].out_features == 2
    assert SEBlock1d(64, 16).layers[0].out_features == 4
    assert len(SEBlock1d(4, 2, act="linear").layers) == 3
    with pytest.raises(InputError, match="`r` must be a whole number of at least 1; got 0"):
        SEBlock1d(3, 0)


@pytest.mark.parametrize(("_make", "pool", "positions"), SHAPES)
def test_pooling_gives_the_largest_then_the_means(_make, pool, positions):
    x = torch.randn(3, 5, *positions)
    y = pool()(x)
    assert y.shape == (3, 10, *(1 for _ in positions))
    torch.testing.assert_close(y.flatten(1), torch.cat([x.flatten(2).amax(2), x.flatten(2).mean(2)], 1))
    assert pool(2)(x).shape == (3, 10, *(2 for _ in positions))
    halves = pool(2)(x)[:, 5:].reshape(3, 5, -1).mean(2)
    torch.testing.assert_close(halves, x.flatten(2).mean(2))  # regions of equal size
