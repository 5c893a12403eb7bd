"""How well scores tell two kinds apart: against the definition, limits and laws."""

from __future__ import annotations

import math

import torch

from diffdet.kernels.classifier_scores import area_under_roc, share_of_correct


def drawn(n, dtype, seed, levels=None):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(n, dtype=dtype, generator=generator)
    scores = scores if levels is None else (scores * levels).floor()
    signal = torch.rand(n, generator=generator) < 0.4
    return scores, signal, torch.rand(n, dtype=dtype, generator=generator)


def test_the_area_is_the_weighted_share_of_pairs_in_the_right_order(dtype, seed):
    scores, signal, weights = drawn(200, dtype, seed, levels=12)  # many equal scores
    s, b = scores[signal, None], scores[None, ~signal]
    pairs = (weights[signal, None] * weights[None, ~signal]).double()
    wins = (s > b).double() + 0.5 * (s == b).double()
    expected = (pairs * wins).sum() / pairs.sum()
    torch.testing.assert_close(area_under_roc(scores, signal, weights), expected, rtol=1e-6, atol=0)


def test_limits():
    signal = torch.tensor([True, False, True, False])
    ones = torch.ones(4)
    assert area_under_roc(torch.tensor([2.0, 1.0, 3.0, 0.0]), signal, ones).item() == 1.0
    assert area_under_roc(torch.tensor([0.0, 1.0, 0.5, 3.0]), signal, ones).item() == 0.0
    assert area_under_roc(torch.zeros(4), signal, ones).item() == 0.5
    assert math.isnan(area_under_roc(torch.arange(4.0), torch.ones(4, dtype=torch.bool), ones).item())


def test_the_area_knows_the_order_only_and_turns_with_the_sign(seed):
    scores, signal, weights = drawn(300, torch.float64, seed)
    area = area_under_roc(scores, signal, weights)
    torch.testing.assert_close(area_under_roc(scores.exp() * 7 - 3, signal, weights), area)
    torch.testing.assert_close(area_under_roc(-scores, signal, weights), 1 - area)
    torch.testing.assert_close(area_under_roc(scores, signal, 5 * weights), area)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(area_under_roc(scores[order], signal[order], weights[order]), area)


def test_share_of_correct_counts_weights(dtype):
    correct = torch.tensor([True, False, True])
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=dtype)
    assert share_of_correct(correct, weights).item() == 0.75
