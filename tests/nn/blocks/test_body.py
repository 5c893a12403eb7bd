"""Bodies: dense layers with and without skip connections, and several side by side."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.body import FullyConnected, IdentBody, MultiBlock
from diffdet.nn.models.initialisations import lookup_normal_init, lookup_uniform_init
from diffdet.nn.models.layers.batchnorms import RunningBatchNorm1d
from nn.numeric_cases import Case

MAP = {name: [k] for k, name in enumerate("abcdef")}
SMALL = partial(FullyConnected, depth=1, width=3)


def weights(body, d, j=0):
    """Weight and bias of a Linear layer, as matrices of Python's own arithmetic would use them."""
    return body.layers[d][j].weight, body.layers[d][j].bias


def norm(bn, x):
    """A batch norm in evaluation, written out."""
    return (x - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias


def stir(body):
    """Parameters and running statistics that no symmetry hides."""
    for name, value in body.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.randn(value.shape).abs() + 0.5 if name.endswith("running_var") else torch.randn(value.shape)
            )
    return body.eval()


@torch.no_grad()
def test_residual_layers_equal_the_slow_twin():
    body = stir(FullyConnected(4, MAP, depth=5, width=6, act="relu", res=True, bn=True).double())
    x = torch.randn(7, 4, dtype=torch.float64)
    w, b = weights(body, 0)
    h = norm(body.layers[0][2], (x @ w.T + b).clamp_min(0))
    for d in (1, 2):
        (w1, b1), (w2, b2) = weights(body, d, 0), weights(body, d, 3)
        f = norm(body.layers[d][2], (h @ w1.T + b1).clamp_min(0))
        f = (f @ w2.T + b2).clamp_min(0)  # no batch norm of its own: that of the sum follows
        h = norm(body.res_bns[d - 1], f + h)
    assert len(body.layers) == 3
    torch.testing.assert_close(body(x), h)


@torch.no_grad()
def test_dense_layers_equal_the_slow_twin():
    body = stir(FullyConnected(4, MAP, depth=4, width=5, act="tanh", dense=True, growth_rate=-0.2).double())
    x = torch.randn(7, 4, dtype=torch.float64)
    outputs = []
    for d in range(4):
        w, b = weights(body, d)
        seen = torch.cat([*outputs[::-1], x], 1)  # the newest first, the input last
        outputs.append((seen @ w.T + b).tanh())
    torch.testing.assert_close(body(x), outputs[-1])


@torch.no_grad()
def test_plain_layers_equal_the_slow_twin():
    body = stir(FullyConnected(4, MAP, depth=3, width=5, act="relu", bn=True, growth_rate=0.5).double())
    h = x = torch.randn(7, 4, dtype=torch.float64)
    for d in range(3):
        w, b = weights(body, d)
        h = norm(body.layers[d][2], (h @ w.T + b).clamp_min(0))
    torch.testing.assert_close(body(x), h)


@pytest.mark.parametrize(
    ("settings", "widths"),
    [
        ({"depth": 4, "width": 200, "growth_rate": -0.3}, [200, 140, 80, 20]),
        ({"depth": 6, "width": 55, "growth_rate": -0.1}, [55, 50, 44, 39, 33, 28]),  # cut towards zero
        ({"depth": 5, "width": 4, "growth_rate": -0.4}, [4, 3, 1, 1, 1]),
        ({"depth": 3, "width": 7, "growth_rate": 0.1}, [7, 7, 8]),
    ],
)
def test_growth_of_the_width(settings, widths):
    body = FullyConnected(10, MAP, **settings)
    assert [layer[0].out_features for layer in body.layers] == widths
    assert body.get_out_size() == widths[-1]


def test_residual_bodies_name_their_layers_as_documented():
    body = FullyConnected(3, MAP, depth=2, width=4, act="prelu", bn=True, res=True)
    assert [type(part).__name__ for part in body[1]] == ["Linear", "PReLU", "BatchNorm1d", "Linear", "PReLU"]
    assert next(iter(body.state_dict())) == "res_bns.0.weight"


def test_dropout_of_a_pair_follows_both_layers():
    body = FullyConnected(3, MAP, depth=2, width=4, act="selu", bn=True, res=True, do=0.2)
    kinds = [type(part).__name__ for part in body[1]]
    assert kinds == ["Linear", "SELU", "BatchNorm1d", "AlphaDropout", "Linear", "SELU", "AlphaDropout"]


def test_dropout_and_batch_norm_are_alive_in_training_only():
    body = FullyConnected(3, MAP, depth=2, width=50, do=0.5, bn=True)
    x = torch.randn(20, 3)
    assert not torch.equal(body(x), body(x))
    body.eval()
    assert torch.equal(body(x), body(x))


@pytest.mark.parametrize("settings", [{}, {"res": True}, {"dense": True}], ids=str)
def test_batch_norm_of_choice_and_gradients_everywhere(settings):
    body = FullyConnected(3, MAP, depth=3, width=4, bn=True, bn_class=RunningBatchNorm1d, act="swish", **settings)
    body(torch.randn(8, 3)).square().sum().backward()
    assert any(isinstance(part, RunningBatchNorm1d) for part in body.modules())
    assert not any(isinstance(part, nn.BatchNorm1d) for part in body.modules())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in body.parameters())


def test_inputs_need_not_be_contiguous():
    for body in (FullyConnected(6, MAP, 3, 4), MultiBlock(6, MAP, [SMALL], [["b", "d"]], bottleneck_sz=1)):
        x = torch.randn(6, 9).T
        assert not x.is_contiguous()
        torch.testing.assert_close(body(x), body(x.contiguous()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "`depth` must be a whole number of at least 1; got 0"),
        ({"width": 0}, "`width` must be a whole number of at least 1; got 0"),
        ({"width": 2.5}, "`width` must be a whole number of at least 1; got 2.5"),
        ({"n_in": 0}, "`n_in` must be a whole number of at least 1; got 0"),
        ({"res": True, "dense": True}, "`res` and `dense` exclude each other"),
        ({"act": "rellu"}, "Did you mean 'relu'?"),
        ({"act": "rellu", "res": True}, "Did you mean 'relu'?"),
        ({"do": 1.5}, "`do` must lie in [0, 1)"),
        ({"growth_rate": float("nan")}, "`growth_rate` must be finite"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(InputError) as raised:
        FullyConnected(**{"n_in": 3, "feat_map": MAP, "depth": 2, "width": 4, **settings})
    assert message in str(raised.value)


def test_the_identity_changes_nothing():
    body = IdentBody(6, MAP)
    x = torch.randn(3, 6)
    assert body(x) is x
    assert body.get_out_size() == 6
    assert body.get_param_count() == 0


# --- several side by side ---


def test_bodies_see_their_columns_and_a_summary_of_the_rest():
    body = MultiBlock(6, MAP, [SMALL, SMALL], [["e", "b"], ["b", "c", "d"]], bottleneck_sz=2, bottleneck_act="tanh")
    x = torch.randn(5, 6)
    parts = []
    for block, bottleneck, mine, rest in zip(
        body.blocks, body.bottleneck_blocks, ([1, 4], [1, 2, 3]), ([0, 2, 3, 5], [0, 4, 5]), strict=True
    ):
        summary = (x[:, rest] @ bottleneck[0].weight.T + bottleneck[0].bias).tanh()
        parts.append(block(torch.cat([x[:, mine], summary], 1)))
    torch.testing.assert_close(body(x), torch.cat(parts, 1))
    assert body.get_out_size() == 6
    assert body[0] is body.blocks[0]


def test_multi_blocks_can_be_nested():
    inner = partial(MultiBlock, blocks=[SMALL, SMALL], feats_per_block=[["c"], ["e", "f"]], bottleneck_sz=1)
    body = MultiBlock(6, MAP, [SMALL, inner], [["a"], ["c", "e", "f"]], bottleneck_sz=2)
    x = torch.randn(5, 6, dtype=torch.float64)
    body.double()
    nested = body.blocks[1]
    assert nested.masks == [[0], [1, 2]]
    part = torch.cat([x[:, [2, 4, 5]], body.bottleneck_blocks[1](x[:, [0, 1, 3]])], 1)
    first = nested.blocks[0](torch.cat([x[:, [2]], nested.bottleneck_blocks[0](x[:, [4, 5]])], 1))
    torch.testing.assert_close(nested(part)[:, :3], first)
    torch.testing.assert_close(body(x)[:, 3:], nested(part))
    assert body.get_out_size() == 9


def test_columns_that_features_share_are_taken_once():
    shared = {f"{v}_{f}": [0, 1, 2, 3, 4, 5] for v in "ab" for f in ("pt", "eta")}
    body = MultiBlock(6, shared, [SMALL], [list(shared)])
    assert body.masks == [[0, 1, 2, 3, 4, 5]]
    assert body.blocks[0].layers[0][0].in_features == 6


def test_columns_come_in_the_order_of_the_map():
    assert MultiBlock(6, MAP, [SMALL], [["f", "a", "c"]]).masks == [[0, 2, 5]]


def test_a_feature_that_fills_several_columns_brings_all():
    body = MultiBlock(6, {"x": [0], "c": [1, 2, 3], "y": [4, 5]}, [SMALL, SMALL], [["c"], ["y", "x"]])
    assert body.masks == [[1, 2, 3], [0, 4, 5]]
    assert body.blocks[1].feat_map == {"x": [0], "y": [1, 2]}


def test_freezing_freezes_everything(shared_dir):
    body = MultiBlock(6, MAP, [SMALL, SMALL], [["a"], ["b"]], bottleneck_sz=1, freeze=True)
    assert {name: p.requires_grad for name, p in body.named_parameters()} == {
        n: False for n, _ in body.named_parameters()
    }
    # those that the original leaves trainable
    left = Case.load(shared_dir, "freeze").entry["result"]["MultiBlock_bottleneck"]
    assert any(trainable for trainable in left.values())
    assert "bottleneck_blocks.0.0.weight" in dict(body.named_parameters())


def test_what_a_partial_sets_is_kept():
    def zeros(act, fan_in, fan_out):
        return nn.init.zeros_

    body = MultiBlock(
        6, MAP, [partial(SMALL, freeze=True, lookup_init=zeros), SMALL], [["a"], ["b"]], lookup_init=lookup_uniform_init
    )
    assert body.blocks[0].get_param_count() == 0
    assert bool((body.blocks[0].layers[0][0].weight == 0).all())
    assert body.blocks[1].get_param_count() == 6
    assert body.blocks[1].lookup_init is lookup_uniform_init
    assert MultiBlock(6, MAP, [SMALL], [["a"]]).blocks[0].lookup_init is lookup_normal_init


def test_bottlenecks_come_first_in_the_state():
    body = MultiBlock(6, MAP, [SMALL], [["a"]], bottleneck_sz=1)
    assert list(body.state_dict()) == [
        "bottleneck_blocks.0.0.weight",
        "bottleneck_blocks.0.0.bias",
        "blocks.0.layers.0.0.weight",
        "blocks.0.layers.0.0.bias",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"feats_per_block": [["alpha"], ["b"]], "feat_map": {"alhpa": [0], "b": [1]}},
            "got 'alpha' for block 0. Did you mean 'alhpa'?",
        ),
        ({"feats_per_block": [["a"], []]}, "must give every block a feature; got [] for block 1"),
        ({"feats_per_block": [["a"]]}, "must have one entry a body, at least one; got 2 and 1"),
        ({"blocks": [], "feats_per_block": []}, "at least one; got 0 and 0"),
        (
            {"bottleneck_sz": 1, "feats_per_block": [list("abcdef"), ["b"]]},
            "`bottleneck_sz` must be 0 where a block receives every feature",
        ),
        ({"bottleneck_sz": -1}, "`bottleneck_sz` must be a whole number of at least 0; got -1"),
        ({"bottleneck_act": "reloo"}, "`bottleneck_act` must be one of"),
        ({"n_in": 3}, "`feat_map` must name columns 0 to 2 of the input; got {'d': [3]"),
    ],
)
def test_features_that_do_not_exist_are_refused(changed, message):
    arguments = {"n_in": 6, "feat_map": MAP, "blocks": [SMALL, SMALL], "feats_per_block": [["a"], ["b"]], **changed}
    with pytest.raises(InputError) as raised:
        MultiBlock(**arguments)
    assert message in str(raised.value)
