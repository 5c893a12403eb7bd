"""Recurrent heads read both ends, give all states when asked, and run over present objects only."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.nn.models.blocks.head import RecurrentHead
from nn.some_heads import FEATS, VECS, columns, events, masks

RNNS = [nn.RNN, nn.LSTM, nn.GRU]


def recurrent(depth=1, **more):
    return RecurrentHead(columns(), VECS, FEATS, depth, 3, **more).double().eval()


def step(rnn, x, state, layer):
    """One step of torch's cells, by their definition."""
    w_ih, w_hh, b_ih, b_hh = (getattr(rnn, f"{n}_{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    a, b = w_ih @ x + b_ih, w_hh @ state[0] + b_hh
    if rnn.mode == "RNN_TANH":
        return (torch.tanh(a + b),)
    if rnn.mode == "GRU":
        (ar, az, an), (br, bz, bn) = a.chunk(3), b.chunk(3)
        r, z = torch.sigmoid(ar + br), torch.sigmoid(az + bz)
        return ((1 - z) * torch.tanh(an + r * bn) + z * state[0],)
    i, f, g, o = (a + b).chunk(4)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def run(head, rows):
    """Hidden states by loops over layers, directions and objects; (objects, width)."""
    ways = ["", "_reverse"] if head.bidirectional else [""]
    for layer in range(head.depth):
        found = []
        for way in ways:
            state = (torch.zeros(3, dtype=torch.float64),) * 2
            states = []
            for row in reversed(rows) if way else rows:
                state = step(head.rnn, row, state, f"l{layer}{way}")
                states.append(state[0])
            found.append(states[::-1] if way else states)
        rows = [torch.cat(parts) for parts in zip(*found, strict=True)]
    return rows


def ends(head, rows):
    """The last state of each direction."""
    states = run(head, rows)
    return torch.cat([states[-1][:3], states[0][3:]])


@pytest.mark.parametrize("rnn", RNNS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_equals_loops_over_layers_and_objects(rnn, bidirectional, depth):
    head = recurrent(depth, rnn=rnn, bidirectional=bidirectional)
    objects, mask = events(5, torch.float64), masks(5)
    found, masked = head(objects), head(objects, mask)
    for event in range(5):
        torch.testing.assert_close(found[event], ends(head, list(objects[event])))
        rows = list(objects[event][mask[event]])
        torch.testing.assert_close(masked[event], ends(head, rows) if rows else torch.zeros_like(masked[event]))


@pytest.mark.parametrize("rnn", RNNS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stateful_gives_the_state_after_every_object(rnn, bidirectional):
    head = recurrent(2, rnn=rnn, bidirectional=bidirectional, stateful=True)
    width = 6 if bidirectional else 3
    assert head.get_out_size() == (5, width)
    assert head.feat_map["a_px"] == list(range(5 * width))
    objects, mask = events(4, torch.float64), masks(4)
    found, masked = head(objects), head(objects, mask)
    assert found.shape == (4, 5, width)
    for event in range(4):
        torch.testing.assert_close(found[event], torch.stack(run(head, list(objects[event]))))
        present = run(head, list(objects[event][mask[event]]))
        if present:
            torch.testing.assert_close(masked[event][mask[event]], torch.stack(present))
        assert not masked[event][~mask[event]].any()


def test_the_backward_direction_sees_all_objects_unlike_in_the_older_package():
    new = recurrent(rnn=nn.GRU, bidirectional=True)
    old = recurrent(rnn=nn.GRU, bidirectional=True, legacy_last_step=True)
    old.load_state_dict(new.state_dict())
    objects = events(2, torch.float64)
    moved = objects.clone()
    moved[:, 0] += 1
    assert torch.equal(old(moved)[:, 3:], old(objects)[:, 3:])
    assert ((new(moved) - new(objects)).abs() > 1e-6).all()
    torch.testing.assert_close(old(objects), new.rnn(objects)[0][:, -1])
    assert torch.equal(old(objects)[:, :3], new(objects)[:, :3])


def test_one_direction_is_the_same_read_either_way():
    new, old = recurrent(), recurrent(legacy_last_step=True)
    old.load_state_dict(new.state_dict())
    objects = events(2, torch.float64)
    assert torch.equal(new(objects), old(objects))
    assert torch.equal(new(objects, masks(2)), old(objects, masks(2)))


@pytest.mark.parametrize("rnn", RNNS)
def test_gradients_with_a_mask_are_those_of_finite_differences(rnn):
    head = recurrent(2, rnn=rnn, bidirectional=True)
    assert gradcheck(lambda x: head(x, masks(3)), (events(3, torch.float64).requires_grad_(),))


def test_dropout_between_layers_acts_in_training_with_and_without_a_mask():
    head = recurrent(2, do=0.5, bidirectional=True).train()
    objects = events(8, torch.float64)
    everyone = torch.ones(8, 5, dtype=torch.bool)
    for call in (lambda: head(objects), lambda: head(objects, everyone)):
        assert not torch.equal(call(), call())
    head.eval()
    torch.testing.assert_close(head(objects), head(objects, everyone))


def test_the_activation_is_that_of_a_plain_network_only():
    assert recurrent(act="relu").rnn.mode == "RNN_RELU"
    assert recurrent(act="swish", rnn=nn.LSTM).rnn.mode == "LSTM"
    with pytest.raises(InputError, match="`act` must be one of 'tanh', 'relu'"):
        recurrent(act="swish")


def test_a_network_of_another_kind_needs_its_own_way_to_take_masks():
    class Own(nn.GRU):
        def __init__(self, *args, **kargs):
            super().__init__(*args, **kargs)
            self.mode = "OWN"

    head = RecurrentHead(columns(), VECS, FEATS, 1, 3, bidirectional=True, rnn=Own)
    with pytest.raises(NotSupportedError, match="Own"):
        head(events(3), masks(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"depth": 0}, "`depth`"), ({"do": 0.1}, "`do` must be 0 with `depth` = 1"), ({"depth": 2, "do": 1}, "`do`")],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        recurrent(**wrong)
