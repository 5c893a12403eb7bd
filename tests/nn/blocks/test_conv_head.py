"""Convolutions along the objects: networks of the user's own, and the number of columns followed through them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, NotSupportedError, ShapeError
from diffdet.nn.models.blocks.conv_blocks import AdaptiveAvgMaxConcatPool1d, Conv1DBlock, SEBlock1d
from diffdet.nn.models.blocks.head import AbsConv1dHead
from diffdet.nn.models.initialisations import lookup_uniform_init
from nn.some_heads import FEATS, VECS, Convolutions, columns, events, masks, matrix_head


class Net(AbsConv1dHead):
    """Any network, given from outside."""

    def get_layers(self, in_c, act="relu", bn=False, *, net=None, **kargs):
        return net


def head_of(net, vecs=VECS, **more):
    return Net(columns(vecs), vecs, FEATS, layer_kargs={"net": net}, **more).eval()


def columnwise(objects):
    return objects.transpose(1, 2)


class WithoutChannels(AbsConv1dHead):
    """Swallows the number of channels, as the examples of the documentation do."""

    def get_layers(self, act="relu", bn=False, **kargs):
        return nn.Sequential(self.get_conv1d_block(4, 3, kernel_sz=3, act=act, bn=bn), nn.AdaptiveAvgPool1d(1))


class WrittenDown(AbsConv1dHead):
    """Has no place for the number of channels, and returns a size, too."""

    def get_layers(self, act, bn):
        return nn.Sequential(self.get_conv1d_block(4, 3, 3, act=act, bn=bn), nn.AdaptiveAvgPool1d(1)), 3


@pytest.mark.parametrize("style", [WithoutChannels, WrittenDown])
def test_every_documented_way_to_write_a_network_works(style):
    head = style(columns(), VECS, FEATS, act="swish", bn=True)
    assert head.get_out_size() == head.check_out_sz() == 3
    assert isinstance(head.layers[0].layers[1], nn.Module)
    assert head(events(4).flatten(1)).shape == (4, 3)
    assert head[1] is head.layers[1]


def test_settings_reach_the_network():
    seen = {}

    class Looks(AbsConv1dHead):
        def get_layers(self, in_c, act="relu", bn=False, **kargs):
            seen.update(in_c=in_c, act=act, bn=bn, **kargs)
            return nn.Conv1d(in_c, 2, 1)

    Looks(columns(), VECS, FEATS, act="mish", bn=True, layer_kargs={"size": 7})
    assert seen == {"in_c": 4, "act": "mish", "bn": True, "size": 7}


def test_helpers_use_the_look_ups_of_the_head():
    head = matrix_head("conv", lookup_init=lookup_uniform_init)
    for block in (
        head.get_conv1d_block(4, 6, 3),
        head.get_conv1d_res_block(4, 6, 3),
        head.get_conv1d_resNeXt_block(4, 2, 3, 6, 3),
    ):
        assert block.lookup_init is lookup_uniform_init
        assert (block.act, block.bn) == ("relu", False)  # not those of the head


def test_trying_the_size_leaves_no_trace():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    torch.manual_seed(3)
    head = Convolutions(columns(), VECS, FEATS, bn=True)
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm1d)]
    assert norms
    assert all(int(norm.num_batches_tracked) == 0 and norm.training for norm in norms)
    state = torch.get_rng_state()
    head.check_out_sz()
    assert torch.equal(state, torch.get_rng_state())
    assert before.shape == state.shape


def test_results_that_are_not_contiguous_are_flattened():
    class Turns(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2)

    assert head_of(Turns()).get_out_size() == 20


# parts behind a convolution, by name
PARTS = {
    "average of all": lambda: [nn.AdaptiveAvgPool1d(1)],
    "largest of all": lambda: [nn.AdaptiveMaxPool1d(1)],
    "both of all": lambda: [AdaptiveAvgMaxConcatPool1d()],
    "largest of windows": lambda: [nn.MaxPool1d(2, padding=1), nn.AdaptiveAvgPool1d(1)],
    "average of windows": lambda: [nn.AvgPool1d(3, stride=2, padding=1), nn.AdaptiveAvgPool1d(1)],
    "squeeze": lambda: [SEBlock1d(6, 2), nn.AdaptiveAvgPool1d(1)],
    "even kernel": lambda: [Conv1DBlock(6, 5, 4, stride=2, act="sigmoid"), nn.AdaptiveMaxPool1d(1)],
    "wide padding": lambda: [nn.Conv1d(6, 5, 3, padding=1, dilation=1), nn.Sigmoid(), nn.AdaptiveAvgPool1d(1)],
    "same padding": lambda: [nn.Conv1d(6, 5, 3, padding="same", dilation=2), nn.AdaptiveAvgPool1d(1)],
    "no padding": lambda: [nn.Conv1d(6, 5, 2, padding="valid"), nn.AdaptiveAvgPool1d(1)],
    "stride": lambda: [nn.Conv1d(6, 5, 1, stride=3), nn.Tanh(), nn.AdaptiveAvgPool1d(1)],
    "nested": lambda: [nn.Sequential(nn.Dropout(0.2), nn.PReLU()), nn.AdaptiveAvgPool1d(1)],
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("kept", [[0, 1, 2], [1, 4], [0, 2, 3, 4]])
def test_masked_equals_absent_through_every_part(name, kept):
    net = nn.Sequential(Conv1DBlock(4, 6, 3, act="sigmoid", bn=True), *PARTS[name]()).double().eval()
    full = head_of(net)
    alone = head_of(net, [VECS[v] for v in kept])
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, kept] = True
    objects = events(3, torch.float64)
    torch.testing.assert_close(full(columnwise(objects), mask), alone(columnwise(objects[:, kept])))


def test_a_part_of_the_users_own_may_carry_the_mask():
    class Halves(nn.Module):
        def forward(self, x):
            return x[:, :, ::2]

        def carry_mask(self, x, mask):
            return self(x), mask[:, ::2]

    head = head_of(nn.Sequential(nn.Conv1d(4, 3, 1), Halves(), nn.AdaptiveAvgPool1d(1)))
    objects, mask = events(4), masks(4)
    found = head(columnwise(objects), mask)
    conv = head.layers[0]
    for event in range(1, 4):
        kept = objects[event][mask[event]][::2]
        torch.testing.assert_close(found[event], conv(kept.T[None])[0].mean(1))


def test_parts_that_cannot_carry_a_mask_are_named():
    class Strange(nn.Module):
        def forward(self, x):
            return x.cumsum(2)

    for part, name in ((Strange(), "Strange"), (nn.AdaptiveAvgPool1d(2), "AdaptiveAvgPool1d"), (nn.GRU(5, 2), "GRU")):
        net = nn.Sequential(part) if name != "GRU" else nn.Sequential(nn.Conv1d(4, 4, 1))
        head = head_of(net)
        if name == "GRU":
            head.layers.append(part)
        with pytest.raises(NotSupportedError, match=f"`mask`.*{name}"):
            head(columnwise(events(2)), masks(2))


def test_what_is_no_network_is_refused():
    with pytest.raises(InputError, match="`get_layers` must return a module; got int"):
        head_of(3)

    class Scalar(nn.Module):
        def forward(self, x):
            return x.sum().reshape(1, 1).expand(3, 1)

    with pytest.raises(ShapeError, match="must give"):
        head_of(Scalar())
