"""Weights of attention: who attends to whom."""

from __future__ import annotations

import pytest
import torch

from diffdet.kernels.attention import offset_weights, scaled_weights

WEIGHTS = [scaled_weights, offset_weights]


def slow_scaled(query, key):
    rows = []
    for q in query:
        scores = torch.stack([(q * k).sum() for k in key]) / len(q) ** 0.5
        rows.append(scores.exp() / scores.exp().sum())
    return torch.stack(rows)


def slow_offset(query, key):
    scores = torch.stack([torch.stack([(q * k).sum() for k in key]) for q in query])
    columns = scores.exp() / scores.exp().sum(0)  # over queries
    return torch.stack([row / (1e-17 + row.sum()) for row in columns])


@pytest.mark.parametrize(("fast", "slow"), [(scaled_weights, slow_scaled), (offset_weights, slow_offset)])
def test_equal_to_the_slow_twin(fast, slow, dtype):
    query, key = torch.randn(2, 5, 4, 3, dtype=dtype)
    expected = torch.stack([slow(q, k) for q, k in zip(query, key, strict=True)])
    torch.testing.assert_close(fast(query, key), expected)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_sum_to_one(weights, dtype):
    query, key = torch.randn(2, 3, 6, 4, dtype=dtype)
    torch.testing.assert_close(weights(query, key).sum(-1), torch.ones(3, 6, dtype=dtype))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_masked_equals_absent(weights, dtype):
    query, key = torch.randn(2, 1, 6, 4, dtype=dtype)
    mask = torch.tensor([[True, False, True, True, False, True]])
    found = weights(query, key, mask)[0]
    kept = mask[0]
    torch.testing.assert_close(found[kept][:, kept], weights(query[:, kept], key[:, kept])[0])
    assert bool((found[~kept] == 0).all())
    assert bool((found[:, ~kept] == 0).all())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_event_without_objects_has_no_weights_and_finite_gradients(weights):
    query = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[False, False, False], [True, True, False]])
    found = weights(query, key, mask)
    assert bool((found[0] == 0).all())
    found.square().sum().backward()
    for tensor in (query, key):
        assert torch.isfinite(tensor.grad).all()
        assert bool((tensor.grad[0] == 0).all())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients(weights):
    query = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    key = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False, True]])
    assert torch.autograd.gradcheck(weights, (query, key, mask))
    assert torch.autograd.gradcheck(weights, (query, key))


def test_rows_that_underflow_are_zero_in_every_type():
    # object 0 loses every column to the others by a factor that no type can hold
    query = torch.tensor([[[0.0], [1e4]]])
    key = torch.tensor([[[1.0], [1.0]]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = offset_weights(query.to(dtype), key.to(dtype))
        assert torch.isfinite(found).all()
        assert found[0].float().tolist() == [[0, 0], [0.5, 0.5]]
