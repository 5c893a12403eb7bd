"""Graph blocks against loops over objects and neighbours; the order of objects; predictions for every object."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.blocks.gnn_blocks import (
    AbsGraphFeatExtractor,
    GraphCollapser,
    GravNet,
    GravNetLayer,
    InteractionNet,
    NodePredictor,
)
from diffdet.nn.models.blocks.head import GNNHead
from diffdet.nn.models.layers.batchnorms import RunningBatchNorm1d
from nn.some_heads import COLLAPSE, FEATS, GRAV, PAIRS, RICH, VECS, columns, events, masks, matrix_head, taught


def layer(**more):
    settings = {"cat_means": True, "f_slr_depth": 2, "n_s": 2, "n_lr": 3, "k": 3, "f_out_depth": 2, "n_out": 4}
    return GravNetLayer(5, 4, **{**settings, "act": "swish", **more}).double().eval()


def grav_loop(net, objects):
    """One layer of GravNet on one event, object by object."""
    n = len(objects)
    if net.cat_means:
        means = sum(objects) / n
        objects = [torch.cat([x, means]) for x in objects]
    slr = [net.f_slr(x[None])[0] for x in objects]
    place, message = [v[: net.n_s] for v in slr], [v[net.n_s :] for v in slr]
    new = []
    for j in range(n):
        d2 = [sum((place[j][a] - place[k][a]) ** 2 for a in range(net.n_s)) for k in range(n)]
        near = sorted(range(n), key=lambda k: float(d2[k].detach()))[: net.k]
        heard = torch.stack([message[k] * math.exp(-10 * float(d2[k].detach())) for k in near])
        if net.sa_agg is not None:
            heard = net.sa_agg(heard[None])[0]
        methods = {"mean": heard.mean(0), "max": heard.amax(0), "absmax": heard.abs().amax(0), "sum": heard.sum(0)}
        aggregates = torch.cat([methods[name] for name in net.agg_methods])
        new.append(net.f_out(torch.cat([objects[j], aggregates])[None])[0])
    return torch.stack(new)


GRAVS = {
    "plain": {},
    "no means": {"cat_means": False},
    "attention": {"use_sa": True, "sa_width": 2},
    "others": {"agg_methods": ["absmax", "SUM"]},
    "all": {"k": 5, "f_slr_depth": 1, "f_out_depth": 1},
}


@pytest.mark.parametrize("name", GRAVS)
def test_grav_net_layer_equals_a_loop(name):
    net, objects, mask = layer(**GRAVS[name]), events(5, torch.float64), masks(5)
    found, masked = net(objects), net(objects, mask)
    for event in range(5):
        torch.testing.assert_close(found[event], grav_loop(net, list(objects[event])))
        present = list(objects[event][mask[event]])
        if present:
            torch.testing.assert_close(masked[event][mask[event]], grav_loop(net, present))
        assert not masked[event][~mask[event]].any()


def test_widths_of_grav_net_layers():
    net = layer(f_slr_depth=3, f_out_depth=3)
    assert [m[0].out_features for m in net.f_slr] == [10, 10, 5]
    assert [m[0].out_features for m in net.f_out] == [8, 8, 4]
    assert net.get_out_size() == (5, 4)


def test_attention_has_queries_of_some_width():
    assert layer(use_sa=True, n_lr=3).sa_agg.q.out_features == 1
    assert layer(use_sa=True, n_lr=8).sa_agg.q.out_features == 2
    assert layer(use_sa=True, sa_width=5).sa_agg.q.out_features == 5


def test_grav_net_puts_the_features_of_all_layers_side_by_side():
    net = GRAV(n_v=5, n_fpv=4).double().eval()
    objects = events(3, torch.float64)
    first = net.grav_layers[0](objects)
    torch.testing.assert_close(net(objects), torch.cat([first, net.grav_layers[1](first)], -1))
    assert net.get_out_size() == (5, 9)
    assert GRAV(n_v=5, n_fpv=4, n_out=3).get_out_size() == (5, 3)


EXTRACTORS = {"grav": GRAV, "grav sa": partial(GRAV, use_sa=True), "pairs": PAIRS}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_new_features_follow_the_order_of_objects(name):
    net = EXTRACTORS[name](n_v=5, n_fpv=4).double().eval()
    objects = events(2, torch.float64)
    turn = (lambda x: x) if net.row_wise else (lambda x: x.transpose(1, 2))
    before = turn(net(turn(objects)))
    for order in itertools.islice(itertools.permutations(range(5)), 0, None, 7):
        torch.testing.assert_close(turn(net(turn(objects[:, list(order)]))), before[:, list(order)])


@pytest.mark.parametrize("collapser", [COLLAPSE, RICH], ids=["plain", "rich"])
def test_aggregates_do_not_depend_on_the_order_of_objects(collapser):
    net = collapser(n_v=5, n_fpv=4).double().eval()
    objects = events(2, torch.float64)
    for order in itertools.islice(itertools.permutations(range(5)), 0, None, 7):
        torch.testing.assert_close(net(objects[:, list(order)]), net(objects))


def test_collapser_equals_its_stages():
    net = RICH(n_v=5, n_fpv=4).double().eval()
    x = events(3, torch.float64)
    x = torch.cat([x, x.mean(1, keepdim=True).expand(-1, 5, -1)], -1)
    x = net.f_inital(x)
    first = net.sa_layers[0](x)
    x = net.f_final(torch.cat([first, net.sa_layers[1](first)], -1))
    wanted = torch.cat([x.sum(1), x.mean(1), x.amax(1), x.abs().amax(1)], 1)
    torch.testing.assert_close(net(events(3, torch.float64)), wanted)
    assert net.get_out_size() == wanted.shape[1]


def test_collapser_flattens_object_by_object():
    net = GraphCollapser(5, 4, flatten=True)
    x = events(2)
    assert torch.equal(net(x), x.flatten(1))
    assert net.get_out_size() == 20
    assert torch.equal(net(x, masks(2)), x.masked_fill(~masks(2)[..., None], 0).flatten(1))


@pytest.mark.parametrize("transposed", [False, True])
def test_node_predictor_predicts_for_every_object(transposed):
    net = NodePredictor(5, 4, [6, 3], "softmax", transposed, act="swish").double().eval()
    x, mask = events(4, torch.float64), masks(4)
    logits = net.f_final[1](net.f_final[0](x))
    assert isinstance(net.f_final[1], nn.Linear)  # nothing behind it
    found, masked = net(x), net(x, mask)
    if transposed:
        assert net.get_out_size() == (3, 5) == tuple(found.shape[1:])
        torch.testing.assert_close(found, logits.softmax(-1).transpose(1, 2))
        torch.testing.assert_close(masked, found * mask[:, None])
    else:
        assert net.get_out_size() == (5, 3) == tuple(found.shape[1:])
        torch.testing.assert_close(found, logits.softmax(1))
        for event in range(1, 4):
            there = mask[event]
            torch.testing.assert_close(masked[event][there], logits[event][there].softmax(0))
        assert not masked[~mask].any()


def test_node_predictor_in_a_head_gives_a_matrix():
    nodes = partial(NodePredictor, f_final_outs=[2], out_act="sigmoid")
    head = GNNHead(columns(), VECS, FEATS, PAIRS, nodes)
    assert head.get_out_size() == (5, 2)
    assert head(events(3).flatten(1)).shape == (3, 5, 2)
    assert head.feat_map["a_px"] == list(range(10))


def test_gradients_are_those_of_finite_differences():
    for net in (layer(use_sa=True), RICH(n_v=5, n_fpv=4).double().eval()):
        x = events(2, torch.float64).requires_grad_()
        assert gradcheck(net, (x,))
        assert gradcheck(lambda x, net=net: net(x, masks(2)), (x,))


def test_batch_norms_may_be_of_another_class():
    head = matrix_head("gnn pairs", bn_class=RunningBatchNorm1d)
    assert isinstance(head.bn, RunningBatchNorm1d)
    block = PAIRS(n_v=5, n_fpv=4, bn=True, bn_class=RunningBatchNorm1d)
    assert isinstance(block.fr[0][2].bn, RunningBatchNorm1d)
    set_by_partial = partial(PAIRS, bn=True, bn_class=nn.BatchNorm1d)
    mixed = GNNHead(columns(), VECS, FEATS, set_by_partial, COLLAPSE, bn_class=RunningBatchNorm1d)
    assert type(mixed.extractor.fr[0][2].bn) is nn.BatchNorm1d


def test_head_equals_its_stages():
    head = taught(matrix_head("gnn pairs").double())
    x = events(4, torch.float64)
    rows = head.bn(x.flatten(0, 1)).reshape(x.shape)
    rows = torch.cat([rows, rows.mean(1, keepdim=True).expand(-1, 5, -1)], -1)
    new = head.extractor(rows.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(head(x.transpose(1, 2)), head.collapser(new))


def test_classes_will_do_where_nothing_else_is_to_be_set():
    class Same(AbsGraphFeatExtractor):
        def forward(self, x, mask=None):
            return self.rows(x, mask)

        def get_out_size(self):
            return self.n_v, self.n_fpv

    head = GNNHead(columns(), VECS, FEATS, Same, COLLAPSE)
    x = events(3)
    assert torch.equal(head(x), torch.cat([x.mean(1), x.amax(1)], 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer(k=6), "`k` must be at most the number of objects, 5"),
        (lambda: layer(agg_methods=["mean", "median"]), "`agg_methods` must be one of"),
        (lambda: layer(agg_methods=[]), "`agg_methods` must hold at least one"),
        (lambda: layer(n_s=0), "`n_s`"),
        (lambda: layer(act="swich"), "`act`"),
        (lambda: GravNet(5, 4, True, 1, 2, 3, 2, 1, []), "`n_out` must be a list"),
        (lambda: GraphCollapser(5, 4, False, n_sa_layers=1), "`sa_width` must be given"),
        (lambda: GraphCollapser(5, 4, False, agg_methods="maxx"), "Did you mean 'max'"),
        (lambda: GraphCollapser(5, 4, False, n_sa_layers=-1), "`n_sa_layers`"),
        (lambda: NodePredictor(5, 4, []), "`f_final_outs`"),
        (lambda: NodePredictor(5, 4, [2], "softmaxx"), "'softmax'"),
        (lambda: GNNHead(columns(), VECS, FEATS, COLLAPSE, COLLAPSE), "`extractor`"),
        (lambda: GNNHead(columns(), VECS, FEATS, PAIRS, GRAV), "`collapser`"),
        (lambda: InteractionNet(1, 4, [2], [2]), "`n_v`"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises((InputError, TypeError), match=message):
        make()


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="`x`"):
        layer()(torch.zeros(2, 4, 4))
    with pytest.raises(ShapeError, match="`mask`"):
        layer()(events(2, torch.float64), masks(3))
    with pytest.raises(InputError, match="truth values"):
        layer()(events(2, torch.float64), torch.ones(2, 5))
