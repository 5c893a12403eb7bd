"""Batches of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.data.batch_yielder import BatchYielder

X = np.arange(14.0).reshape(7, 2)
Y = np.arange(7)


def test_batches_hold_every_sample_once_with_its_target_and_weight():
    by = BatchYielder(X, 3, "regression", Y, Y + 1.0, drop_last=False)
    batches = list(by)
    assert len(by) == len(batches) == 3
    x, y, w = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(y[:, 0].tolist()) == list(range(7))
    assert torch.equal(x[:, :1], 2 * y)
    assert torch.equal(w, y + 1)


def test_orders_differ_between_iterations_and_follow_from_the_seed():
    by, again = BatchYielder(X, 7, "regression", Y), BatchYielder(X, 7, "regression", Y)
    first, second = (next(iter(by))[1] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, next(iter(again))[1])


def test_the_last_smaller_batch_is_dropped_if_asked():
    assert len(list(BatchYielder(X, 3, "regression", Y))) == 2


def test_classes_become_integers_and_masks_come_along():
    matrix, mask = np.zeros((7, 4, 2)), np.ones((7, 4))
    (x, y, w, m), *_ = BatchYielder((X, matrix), 2, "multiclass classification", Y[:, None], mask=mask, shuffle=False)
    assert y.dtype is torch.int64
    assert y.tolist() == [0, 1]
    assert x[1].shape == (2, 4, 2)
    assert w is None
    assert m.dtype is torch.bool
    x, _, w = next(iter(BatchYielder(X, 2, "regression", Y, Y, use_weights=False, input_mask=[1], shuffle=False)))
    assert x.tolist() == [[1], [3]]
    assert w is None


def test_a_batch_greater_than_the_samples_is_refused():
    with pytest.raises(InputError, match="`bs` must be from 1 to the number of samples, 7"):
        BatchYielder(X, 8, "regression", Y)
