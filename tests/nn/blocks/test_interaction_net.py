"""The interaction network sees every ordered pair once, in any order, whole or in pieces."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks import gnn_blocks
from diffdet.nn.models.blocks._graph import pairs
from diffdet.nn.models.blocks.head import InteractionNet
from nn.some_heads import FEATS, INET, VECS, columns, events, masks, matrix_head, taught


def wide(name="inet", **more):
    return matrix_head(name, **more).double()


def columnwise(objects):
    return objects.transpose(1, 2)


def loop(head, objects, present=None):
    """The definition, pair by pair, one event: new features of present objects."""
    present = range(len(objects)) if present is None else present
    new = []
    for r in present:
        heard = sum(head.fr(torch.cat([objects[r], objects[s]])[None])[0] for s in present if s != r)
        if not torch.is_tensor(heard):  # nobody to hear
            heard = torch.zeros(head.intfunc_out_sz, dtype=objects.dtype)
        new.append(head.fo(torch.cat([objects[r], heard])[None])[0])
    return torch.stack(new)


@pytest.mark.parametrize("name", ["inet", "inet bn"])
def test_equals_a_loop_over_pairs(name):
    head = taught(wide(name))
    objects = events(4, torch.float64)
    wanted = torch.stack([loop(head, event).sum(0) for event in objects])
    torch.testing.assert_close(head(columnwise(objects)), wanted)


def test_with_a_mask_it_equals_a_loop_over_pairs_of_present_objects():
    head, objects, mask = wide(), events(6, torch.float64), masks(6)
    found = head(columnwise(objects), mask)
    for event in range(1, 6):
        wanted = loop(head, objects[event], mask[event].nonzero().flatten().tolist()).sum(0)
        torch.testing.assert_close(found[event], wanted)
    assert not found[0].any()


def test_the_sum_does_not_depend_on_the_order_of_objects():
    head, objects = taught(wide("inet bn")), events(3, torch.float64)
    wanted = head(columnwise(objects))
    for order in itertools.permutations(range(5)):
        torch.testing.assert_close(head(columnwise(objects[:, list(order)])), wanted)


def test_flattened_features_follow_the_order_of_objects():
    head, objects = wide("inet flat"), events(3, torch.float64)
    before = head(columnwise(objects)).reshape(3, -1, 5)
    for order in itertools.permutations(range(5)):
        after = head(columnwise(objects[:, list(order)])).reshape(3, -1, 5)
        torch.testing.assert_close(after, before[:, :, list(order)])


def test_every_ordered_pair_interacts():
    head, objects = wide("inet flat"), events(1, torch.float64)
    before = head(columnwise(objects)).reshape(-1, 5)
    for s in range(5):
        moved = objects.clone()
        moved[:, s] += 0.3
        changed = (head(columnwise(moved)).reshape(-1, 5) != before).any(0)
        assert changed.all()


def test_the_ring_of_the_older_package_lets_neighbours_interact_only():
    ring = wide("inet flat", legacy_ring=True)
    objects = events(1, torch.float64)
    moved = objects.clone()
    moved[:, 2] += 0.3
    changed = (ring(columnwise(moved)) != ring(columnwise(objects))).reshape(-1, 5).any(0)
    assert changed.tolist() == [False, True, True, False, False]
    swapped = wide(legacy_ring=True)
    order = [1, 0, 2, 3, 4]
    assert not torch.allclose(swapped(columnwise(objects)), swapped(columnwise(objects[:, order])))


def test_two_objects_are_a_complete_ring():
    whole, ring = (matrix_head("inet", VECS[:2], legacy_ring=switch) for switch in (False, True))
    ring.load_state_dict(whole.state_dict())
    x = columnwise(events(4, objects=2))
    torch.testing.assert_close(ring(x), whole(x))


def test_pieces_equal_the_whole(monkeypatch):
    head, x, mask = wide(), columnwise(events(23, torch.float64)), masks(23)
    whole = [head(x), head(x, mask)]
    monkeypatch.setattr(pairs, "CACHE_NUMBERS", 700)  # 4 events
    for found, wanted in zip([head(x), head(x, mask)], whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


def test_working_messages_out_again_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr(pairs, "CACHE_NUMBERS", 700)
    kept, again = wide(), wide(recompute=True)
    again.load_state_dict(kept.state_dict())
    gradients = []
    for head in (kept, again):
        x = columnwise(events(11, torch.float64)).requires_grad_()
        head(x, masks(11)).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in head.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_are_those_of_finite_differences():
    head = wide()
    assert gradcheck(head, (columnwise(events(2, torch.float64)).requires_grad_(),))
    assert gradcheck(lambda x: head(x, masks(3)), (columnwise(events(3, torch.float64)).requires_grad_(),))


def test_batch_norms_in_training_leave_out_pairs_of_an_object_with_itself():
    head = wide("inet bn").train()
    objects = events(6, torch.float64)
    head(columnwise(objects))
    first = head.fr[0]
    apart = [(r, s) for r in range(5) for s in range(5) if r != s]
    edges = torch.cat([torch.cat([objects[:, r], objects[:, s]], 1) for r, s in apart])
    seen = nn.functional.silu(nn.functional.linear(edges, first[0].weight, first[0].bias))
    torch.testing.assert_close(first[2].bn.running_mean, 0.1 * seen.mean(0))
    torch.testing.assert_close(first[2].bn.running_var, 0.9 + 0.1 * seen.var(0))


def test_dropout_acts_in_training_only():
    head = wide(do=0.5)
    x = columnwise(events(4, torch.float64))
    assert torch.equal(head(x), head(x))
    head.train()
    assert not torch.equal(head(x), head(x))


def test_head_and_graph_block_agree():
    head = taught(wide("inet bn"))
    block = gnn_blocks.InteractionNet(5, 4, [7, 4], [6, 3], act="swish", bn=True).double().eval()
    block.load_state_dict(head.state_dict())
    x, mask = columnwise(events(4, torch.float64)), masks(4)
    torch.testing.assert_close(block(x, mask).sum(2), head(x, mask))
    assert block.get_out_size() == (5, 3)


@pytest.mark.parametrize("agg", ["SUM", "Flatten"])
def test_the_aggregation_is_read_in_any_case(agg):
    head = INET(columns(), VECS, FEATS, agg_method=agg)
    assert head.get_out_size() == (3 if agg == "SUM" else 15)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agg_method": "summ"}, "`agg_method` must be one of 'sum', 'flatten'.*Did you mean 'sum'"),
        ({"agg_method": None}, "`agg_method`"),
        ({"act": "reluu"}, "`act`.*'relu'"),
        ({"intfunc_depth": 0}, "`intfunc_depth`"),
        ({"outfunc_width": 2.5}, "`outfunc_width`"),
        ({"do": 1.5}, "`do`"),
        ({"vecs": ["a"]}, "at least 2 objects"),
        ({"batchnorm": True}, "`batchnorm` is no argument of InteractionNet"),
        ({"bnn": True}, "Did you mean 'bn'"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    arguments = {"cont_feats": columns(), "vecs": VECS, "feats_per_vec": FEATS, "agg_method": "sum", **wrong}
    with pytest.raises(InputError, match=message):
        INET(**arguments)


def test_graph_block_refuses_wrong_sizes():
    for wrong in ({"n_v": 1}, {"n_fpv": 0}, {"intfunc_outs": []}, {"outfunc_outs": [0]}, {"intfunc_outs": "44"}):
        with pytest.raises(InputError):
            gnn_blocks.InteractionNet(**{"n_v": 3, "n_fpv": 2, "intfunc_outs": [4], "outfunc_outs": [3], **wrong})
    block = gnn_blocks.InteractionNet(3, 2, [4], [3])
    with pytest.raises(InputError, match="`x`"):
        block(torch.zeros(5, 3, 2))


def test_arguments_that_builders_hand_to_all_heads_are_taken():
    assert isinstance(INET(columns(), VECS, FEATS, agg_method="sum", cat_embedder=None, do_cont=0.1), InteractionNet)
