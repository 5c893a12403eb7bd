"""A masked object is as if it were not there: no number in its place counts, and fewer objects give the same."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import InputError, NotSupportedError, ShapeError
from nn.some_heads import (
    MATRIX_HEADS,
    OVER_OBJECTS,
    VECS,
    cat_head,
    events,
    in_layout,
    masks,
    matrix_head,
    multi_head,
    multi_input,
    taught,
)

SOME = {"first": [0, 1, 2], "holes": [0, 2, 4], "last": [3, 4], "one": [2]}
"""Objects that are present."""


def weights_for(name, head, kept):
    """State of a head for fewer objects."""
    state = head.state_dict()
    if not MATRIX_HEADS[name][1]:
        state = {key: value[:, :, kept] if key.endswith("_wgts") else value for key, value in state.items()}
    return state


def smaller(name, head, kept):
    """The head for present objects only; a head of pairs or neighbours needs some."""
    small = matrix_head(name, [VECS[v] for v in kept]).to(next(head.parameters()).dtype)
    small.load_state_dict(weights_for(name, head, kept))
    return small.train(head.training)


def compare(name, full, alone, kept):
    """Output with a mask against that of a head for present objects only."""
    if name in OVER_OBJECTS:
        alone_columns = alone.reshape(len(alone), -1)
        where = columns_of(name, full, kept)
        torch.testing.assert_close(full.flatten(1)[:, where], alone_columns)
        rest = [k for k in range(full.flatten(1).shape[1]) if k not in where]
        assert not full.flatten(1)[:, rest].any()
    else:
        torch.testing.assert_close(full, alone)


def columns_of(name, full, kept):
    """Columns of the flattened output that belong to present objects."""
    width = full.flatten(1).shape[1]
    if name == "inet flat":  # feature by feature
        return [f * len(VECS) + v for f in range(width // len(VECS)) for v in kept]
    if name == "conv flat":  # channel by channel; present objects first, half of the columns behind the stride
        there, long = (len(kept) + 1) // 2, (len(VECS) + 1) // 2
        return [c * long + k for c in range(width // long) for k in range(there)]
    each = width // len(VECS)  # object by object
    return [v * each + f for v in kept for f in range(each)]


def possible(name, kept):
    """Whether there is a head for so few objects."""
    return len(kept) >= {"inet": 2, "gnn pairs": 2, "gnn grav": 3, "gnn sa": 3, "gnn flat": 3}.get(
        "inet" if name.startswith("inet") else name, 1
    )


CASES = [(name, some) for name in MATRIX_HEADS for some in SOME if possible(name, SOME[some])]


@pytest.mark.parametrize(("name", "some"), CASES)
def test_masked_equals_absent(name, some):
    kept = SOME[some]
    head = taught(matrix_head(name).double())
    objects = events(6, torch.float64)
    mask = torch.zeros(6, len(VECS), dtype=torch.bool)
    mask[:, kept] = True
    small = smaller(name, head, kept)
    compare(name, head(in_layout(head, objects), mask), small(in_layout(small, objects[:, kept])), kept)


@pytest.mark.parametrize("name", ["inet bn", "conv", "gnn pairs", "gnn grav", "lbn", "aelbn"])
def test_batch_norms_in_training_learn_from_present_objects_only(name):
    kept = [0, 2, 4]
    head = matrix_head(name).double().train()
    small = smaller(name, head, kept)
    objects = events(8, torch.float64)
    mask = torch.zeros(8, len(VECS), dtype=torch.bool)
    mask[:, kept] = True
    torch.testing.assert_close(head(in_layout(head, objects), mask), small(in_layout(small, objects[:, kept])))
    torch.testing.assert_close(weights_for(name, head, kept), small.state_dict())


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_what_stands_in_the_place_of_an_absent_object_has_no_influence(name, garbage):
    head, objects, mask = taught(matrix_head(name)), events(12), masks(12)
    dirty = torch.where(mask[..., None], objects, torch.full_like(objects, garbage)).requires_grad_()
    found = head(in_layout(head, dirty), mask)
    assert torch.equal(found, head(in_layout(head, objects), mask))
    gradients = torch.autograd.grad(found.square().sum(), [dirty, *head.parameters()], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert gradients[0] is not None
    assert not gradients[0][~mask].any()


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_a_mask_of_all_objects_changes_nothing(name):
    head, objects = taught(matrix_head(name).double()), events(6, torch.float64)
    everyone = torch.ones(6, len(VECS), dtype=torch.bool)
    torch.testing.assert_close(head(in_layout(head, objects), everyone), head(in_layout(head, objects)))


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_an_event_does_not_depend_on_the_masks_of_others(name):
    head, objects, mask = taught(matrix_head(name).double()), events(8, torch.float64), masks(8)
    together = head(in_layout(head, objects), mask)
    for event in range(8):
        alone = head(in_layout(head, objects[event : event + 1]), mask[event : event + 1])
        torch.testing.assert_close(together[event : event + 1], alone)


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_flat_input_takes_the_mask_too(name):
    head, objects, mask = taught(matrix_head(name)), events(6), masks(6)
    torch.testing.assert_close(head(objects.flatten(1), mask), head(in_layout(head, objects), mask))


def test_the_mask_of_a_multi_head_is_for_its_objects():
    head = multi_head()
    together, apart, mask = multi_input(6)
    found = head(together, mask)
    torch.testing.assert_close(found, head(apart, mask))
    torch.testing.assert_close(found[:, :6], head(together)[:, :6])
    torch.testing.assert_close(found[:, 6:], head.matrix_head(apart[1], mask))
    assert not torch.allclose(found, head(together))


@pytest.mark.parametrize("name", ["inet", "lbn"])
@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.ones(4, 5), InputError),
        (torch.ones(4, 4, dtype=torch.bool), ShapeError),
        (torch.ones(3, 5, dtype=torch.bool), ShapeError),
        (torch.ones(5, dtype=torch.bool), ShapeError),
    ],
)
def test_masks_that_do_not_fit_are_refused(name, mask, error):
    head = matrix_head(name)
    with pytest.raises(error, match="`mask`"):
        head(in_layout(head, events(4)), mask)


def test_flat_columns_have_no_mask():
    with pytest.raises(InputError, match="`mask` must be None"):
        cat_head()(torch.zeros(2, 4), torch.ones(2, 5, dtype=torch.bool))


def test_the_ring_and_the_old_reading_take_no_mask():
    for name, switch in (("inet", "legacy_ring"), ("gru", "legacy_last_step")):
        head = matrix_head(name, **{switch: True})
        with pytest.raises(NotSupportedError, match="`mask`"):
            head(in_layout(head, events(2)), masks(2))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_a_batch_without_any_object_is_finite_and_teaches_nothing(name, training):
    head = matrix_head(name).train(training)
    norms = {key: value.clone() for key, value in head.named_buffers() if "running" in key and "fr." in key}
    found = head(in_layout(head, events(4)), torch.zeros(4, 5, dtype=torch.bool))
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    assert all(torch.isfinite(b).all() for b in head.buffers())
    assert all(torch.equal(dict(head.named_buffers())[key], value) for key, value in norms.items())


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_no_events_give_no_rows(name):
    head = matrix_head(name)
    size = head.get_out_size()
    shape = (0, *(size if isinstance(size, tuple) else (size,)))
    assert head(in_layout(head, events(0))).shape == shape
    assert head(in_layout(head, events(0)), torch.zeros(0, 5, dtype=torch.bool)).shape == shape
    assert cat_head()(torch.zeros(0, 4)).shape == (0, 6)


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_mixed_precision_takes_masks_too(name):
    head = taught(matrix_head(name))
    x, mask = in_layout(head, events(6)), masks(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(x, mask)
    found.float().sum().backward()
    wanted = head(x, mask)
    near = (found.float() - wanted).abs() < 0.05 * (wanted.abs().amax() + 1)
    assert near.double().mean() > 0.9  # neighbours may change where distances nearly tie
