"""Two heads side by side: columns are shared out by name, and two ways to hand input over agree."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.blocks.head import CatEmbHead, GNNHead, LorentzBoostNet, MultiHead, RecurrentHead
from nn.some_heads import COLLAPSE, FEATS, GRAV, INET, VECS, columns, multi_head, multi_input

OBJECTS = {"vecs": VECS, "feats_per_vec": FEATS}
MATRIX = {
    "inet": (partial(INET, agg_method="sum", **OBJECTS), True),
    "rnn": (partial(RecurrentHead, depth=1, width=3, rnn=nn.GRU, **OBJECTS), False),
    "states": (partial(RecurrentHead, depth=1, width=3, stateful=True, **OBJECTS), False),
    "lbn": (partial(LorentzBoostNet, n_particles=3, bn=False, **OBJECTS), False),
    "gnn": (partial(GNNHead, extractor=GRAV, collapser=COLLAPSE, **OBJECTS), False),
}


@pytest.mark.parametrize("name", MATRIX)
def test_two_ways_to_hand_input_over_agree(name):
    factory, column_wise = MATRIX[name]
    head = multi_head(factory).double()
    together, (flat, matrix), _ = multi_input(6, torch.float64)
    matrix = matrix if column_wise else matrix.transpose(1, 2)
    found = head(together)
    torch.testing.assert_close(found, head((flat, matrix)))
    wanted = torch.cat([head.flat_head(flat), head.matrix_head(matrix).flatten(1)], 1)
    torch.testing.assert_close(found, wanted)
    assert found.shape[1] == head.get_out_size()


def test_names_are_shared_out():
    head = multi_head()
    assert head.cont_feats == head.flat_head.cont_feats == ["met", "ht"]
    assert head.cat_feats == ["colour", "shape"]
    assert head.matrix_feats == head.matrix_head.cont_feats == columns()
    assert (head.n_cont_in, head.n_cat_in, head.n_matrix_in) == (2, 2, 20)
    assert head.feat_map == {
        "met": [0],
        "ht": [1],
        "colour": [2, 3],
        "shape": [4, 5],
        **{name: [6, 7, 8] for name in columns()},
    }


def test_a_feature_influences_the_columns_of_the_map_and_no_others():
    head = multi_head()
    together, *_ = multi_input(4)
    before = head(together)
    names = ["met", *columns()[:7], "ht", *columns()[7:], "colour", "shape"]
    for k, name in enumerate(names):
        moved = together.clone()
        moved[:, k] = (moved[:, k] + 1) % 3 if name in head.cat_feats else moved[:, k] + 1
        changed = (head(moved) != before).any(0).nonzero().flatten().tolist()
        assert set(changed) <= set(head.feat_map[name]), name
        assert changed, name


def test_scrambled_columns_of_objects_reach_their_cells():
    names = columns()[::-1]
    torch.manual_seed(1)
    backwards = MultiHead(["met", *names], partial(INET, agg_method="sum", **OBJECTS)).eval()
    torch.manual_seed(1)
    forwards = MultiHead(["met", *columns()], partial(INET, agg_method="sum", **OBJECTS)).eval()
    x = torch.randn(4, 21)
    scrambled = torch.cat([x[:, :1], x[:, 1:].flip(1)], 1)
    torch.testing.assert_close(backwards(scrambled), forwards(x))


def test_lookups_move_with_the_head_and_are_not_saved():
    head = multi_head()
    assert not [key for key in head.state_dict() if "lookup" in key or "missing" in key]
    assert head.to("meta")(torch.empty(2, 24, device="meta")).is_meta


def test_each_head_gets_the_arguments_that_it_has():
    head = multi_head(do_cat=0.2, bn=True, act="mish")
    assert head.flat_head.do_cat == 0.2
    assert "matrix_head.fr.0.2.bn.weight" in head.state_dict()


def test_a_class_will_do_if_the_objects_are_named_beside_it():
    head = MultiHead(["met", *columns()], RecurrentHead, depth=1, width=3, **OBJECTS)
    assert head.get_out_size() == 4


def test_freezing_freezes_both_heads():
    head = multi_head(freeze=True)
    assert list(head.parameters())
    assert not any(p.requires_grad for p in head.parameters())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"matrix_head": INET}, "`matrix_head` must be told `vecs` and `feats_per_vec`"),
        ({"cont_feats": ["met"]}, "no feature for `matrix_head`, such as 'a_E'"),
        ({"cont_feats": columns()}, "no feature for `flat_head`"),
        ({"do_cats": 0.1}, "`do_cats`"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    matrix = partial(INET, agg_method="sum", **OBJECTS)
    with pytest.raises(InputError, match=message):
        MultiHead(**{"cont_feats": ["met", *columns()], "matrix_head": matrix, "flat_head": CatEmbHead, **wrong})


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(batch, 24\)"):
        multi_head()(torch.zeros(3, 23))
    _, (flat, matrix), _ = multi_input(3)
    with pytest.raises(ShapeError, match=r"\(batch, 4\)"):
        multi_head()((flat[:, 1:], matrix))
