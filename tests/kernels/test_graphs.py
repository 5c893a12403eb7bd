"""Pairs, neighbours and aggregates of objects, against loops over objects; absent objects do not count."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdet.kernels import graphs


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def some_mask(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.4


@given(st.integers(1, 9))
def test_ordered_pairs_are_all_of_different_objects(n):
    receiver, sender = graphs.ordered_pairs(n)
    found = list(zip(receiver.tolist(), sender.tolist(), strict=True))
    assert found == [(r, s) for r in range(n) for s in range(n) if r != s]


@given(st.integers(1, 9))
def test_unordered_pairs_are_lexicographic(n):
    first, second = graphs.unordered_pairs(n)
    found = list(zip(first.tolist(), second.tolist(), strict=True))
    assert found == [(i, j) for i in range(n) for j in range(i + 1, n)]


def test_a_split_map_on_a_grid_equals_one_map_of_pairs_side_by_side(dtype):
    x, weight, bias = random(2, 5, 3, dtype=dtype), random(4, 6, dtype=dtype, seed=1), random(4, dtype=dtype, seed=2)
    grid = graphs.pair_grid(x @ weight[:, :3].T + bias, x @ weight[:, 3:].T)
    for event in range(2):
        for r in range(5):
            for s in range(5):
                wanted = weight @ torch.cat([x[event, r], x[event, s]]) + bias
                torch.testing.assert_close(grid[event, r, s], wanted)


def test_the_mask_of_pairs(dtype):
    mask = some_mask(4, 5)
    grid = graphs.pair_mask(5, mask)
    for event in range(4):
        for r in range(5):
            for s in range(5):
                assert grid[event, r, s] == (r != s and bool(mask[event, r]) and bool(mask[event, s]))
    assert torch.equal(graphs.pair_mask(5), graphs.pair_mask(5, torch.ones(5, dtype=torch.bool)))


@pytest.mark.parametrize("rest", [(), (3,)])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_dropping_the_diagonal_keeps_senders_in_order(n, rest):
    grid = random(4, n, n, *rest)
    dropped = graphs.drop_diagonal(grid, 1)
    for r in range(n):
        wanted = torch.stack([grid[:, r, s] for s in range(n) if s != r], 1)
        assert torch.equal(dropped[:, r], wanted)


AGGREGATES = {
    graphs.sum_present: lambda rows: torch.stack(rows).sum(0),
    graphs.mean_present: lambda rows: torch.stack(rows).mean(0),
    graphs.max_present: lambda rows: torch.stack(rows).amax(0),
    graphs.absmax_present: lambda rows: torch.stack(rows).abs().amax(0),
}


@pytest.mark.parametrize("function", AGGREGATES, ids=lambda f: f.__name__)
def test_aggregates_equal_loops_over_present_objects(function, dtype):
    x, mask = random(20, 6, 3, dtype=dtype), some_mask(20, 6)
    mask[0] = False
    assert not function(x, mask)[0].any()
    for event in range(1, 20):
        rows = [x[event, v] for v in range(6) if mask[event, v]]
        if rows:
            torch.testing.assert_close(function(x, mask)[event], AGGREGATES[function](rows))
    torch.testing.assert_close(function(x), function(x, torch.ones(20, 6, dtype=torch.bool)))


@pytest.mark.parametrize("function", AGGREGATES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_what_stands_in_the_place_of_an_absent_object_has_no_influence(function, garbage):
    x, mask = random(8, 5, 2), some_mask(8, 5)
    dirty = torch.where(mask[..., None], x, torch.full_like(x, garbage)).requires_grad_()
    found = function(dirty, mask)
    assert torch.equal(found, function(x, mask))
    (gradient,) = torch.autograd.grad(found.sum(), dirty)
    assert not gradient[~mask].any()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("function", AGGREGATES, ids=lambda f: f.__name__)
def test_gradients_of_aggregates(function):
    assert gradcheck(lambda x: function(x, some_mask(3, 4)), (random(3, 4, 2).requires_grad_(),))


def test_squared_distances_equal_a_loop_and_are_zero_at_home(dtype):
    s = random(3, 6, 2, dtype=dtype)
    found = graphs.squared_distances(s)
    assert not found.diagonal(dim1=1, dim2=2).any()
    for r in range(6):
        for t in range(6):
            torch.testing.assert_close(found[:, r, t], (s[:, r] - s[:, t]).square().sum(-1))


@given(st.integers(1, 6), st.integers(0, 1000))
def test_nearest_objects_are_the_nearest_present_ones(k, seed):
    s, mask = random(2, 6, 2, seed=seed), some_mask(2, 6, seed=seed)
    index, there = graphs.nearest(s, k, mask)
    assert there is not None
    for event in range(2):
        present = [v for v in range(6) if mask[event, v]]
        for node in range(6):
            found = {int(i) for i, real in zip(index[event, node], there[event, node], strict=True) if real}
            by_distance = sorted(present, key=lambda v: (s[event, v] - s[event, node]).square().sum().item())
            assert found == (set(by_distance[:k]) if node in present else set())


@pytest.mark.parametrize("coincide", [False, True])
def test_an_object_is_among_its_nearest_even_where_all_coincide(coincide):
    s = random(3, 7, 2) * (0 if coincide else 1)
    index, there = graphs.nearest(s, 4)
    assert there is None
    assert (index == torch.arange(7)[:, None]).any(-1).all()
    assert (index.diff(dim=-1) > 0).all()


def test_of_objects_equally_far_the_first_are_taken():
    s = torch.tensor([[[0.0], [1.0], [1.0], [-1.0], [0.5], [1.0]]])
    index, _ = graphs.nearest(s, 4)
    assert index[0, 0].tolist() == [0, 1, 2, 4]
    index, there = graphs.nearest(s, 4, torch.tensor([[True, False, True, True, False, False]]))
    assert there is not None
    assert index[0, 0][there[0, 0]].tolist() == [0, 2, 3]
    assert not there[0, 1].any()


def test_gathering_takes_the_objects_of_the_same_event():
    x, index = random(3, 5, 2), torch.randint(5, (3, 4, 2), generator=torch.Generator().manual_seed(0))
    found = graphs.gather_objects(x, index)
    for event in range(3):
        assert torch.equal(found[event], x[event][index[event]])
    assert gradcheck(lambda x: graphs.gather_objects(x, index), (x.requires_grad_(),))


def test_gravity_falls_by_e_at_a_tenth():
    assert graphs.gravity(torch.tensor([0.0, 0.1])).tolist() == pytest.approx([1, math.exp(-1)])


def test_packing_puts_present_objects_first_and_unpacking_undoes_it(dtype):
    x, mask = random(10, 5, 3, dtype=dtype), some_mask(10, 5)
    packed, order, number = graphs.pack_present(x, mask)
    for event in range(10):
        rows = x[event][mask[event]]
        assert number[event] == len(rows)
        assert torch.equal(packed[event, : len(rows)], rows)
        assert not packed[event, len(rows) :].any()
    assert torch.equal(graphs.unpack_present(packed, order), graphs.clear_absent(x, mask))


def test_clearing_keeps_nan_out_of_the_gradient():
    x = torch.tensor([[[math.nan], [2.0]]], requires_grad=True)
    cleared = graphs.clear_absent(x, torch.tensor([[False, True]]))
    (gradient,) = torch.autograd.grad(cleared.square().sum(), x)
    assert gradient.flatten().tolist() == [0, 4]
