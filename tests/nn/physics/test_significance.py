"""Cuts by significance: closed forms, slow twins, speed of growth, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.physics import significance as sig


def scored(n=2000, seed=0):
    draw = np.random.default_rng(seed)
    targets = draw.random(n) < 0.3
    scores = np.clip(np.where(targets, draw.beta(4, 2, n), draw.beta(2, 4, n)), 0, 1).round(3)
    return {"pred": scores, "gen_target": targets.astype(int), "gen_weight": draw.uniform(0.5, 1.5, n)}


def test_significance_has_its_closed_form():
    assert sig.calc_ams(10, 100) == pytest.approx(math.sqrt(2 * (110 * math.log(1.1) - 10)))
    assert sig.calc_ams(10, 100, br=10) == pytest.approx(math.sqrt(2 * (120 * math.log1p(10 / 110) - 10)))
    assert sig.calc_ams(10, 100, unc_b=0.1) < sig.calc_ams(10, 100)
    s = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    z = sig.calc_ams_torch(s, torch.tensor(100.0, dtype=torch.float64), br=10, unc_b=0.1)
    assert z.item() == pytest.approx(sig.calc_ams(10, 100, 10, 0.1))
    z.backward()
    assert s.grad > 0


@pytest.mark.parametrize("unc", [0, 0.2])
def test_the_best_cut_equals_that_of_a_slow_search(unc):
    df = scored()
    best = (0.0, 0.0)
    for cut in np.unique(df["pred"]):
        above = df["pred"] >= cut
        s, b = (df["gen_weight"][above & (df["gen_target"] == k)].sum() for k in (1, 0))
        if b + 3 > 0:
            best = max(best, (sig.calc_ams(2 * s, 2 * b, 3, unc), cut))
    assert sig.ams_scan_quick(df, wgt_factor=2, br=3, syst_unc_b=unc) == pytest.approx(best)


def test_the_scan_with_statistical_uncertainty_equals_a_slow_search():
    df = scored()
    best = (0.0, 0.0)
    for cut in np.unique(df["pred"]):
        above = df["pred"] >= cut
        weights = [df["gen_weight"][above & (df["gen_target"] == k)] for k in (1, 0)]
        if cut >= 0.7 and len(weights[0 + 1]) >= 10:
            b = weights[1].sum()
            unc = math.hypot(0.1 * b, math.sqrt((weights[1] ** 2).sum())) / b
            best = max(best, (sig.calc_ams(weights[0].sum(), b, 0, unc), cut))
    got = sig.ams_scan_slow(df, syst_unc_b=0.1, use_stat_unc=True, start_cut=0.7)
    assert got == pytest.approx(best)


def test_few_background_events_cannot_win():
    df = {"pred": np.r_[np.linspace(0, 0.8, 100), 0.99, 0.98], "gen_target": np.r_[np.tile([0, 1], 50), 1, 0]}
    df["gen_weight"] = np.r_[np.ones(100), 50, 1e-6]
    assert sig.ams_scan_quick(df)[1] >= 0.8
    assert sig.ams_scan_slow(df, start_cut=0, min_events=10)[1] < 0.7


def test_a_cut_by_the_mean_of_the_best_lies_among_them():
    df = scored(20_000)
    cut, at_cut, best = sig.binary_class_cut_by_ams(df, min_pred=0.3)
    assert best == pytest.approx(sig.ams_scan_slow(df, start_cut=0.3, min_events=1)[0])
    assert 0.95 * best < at_cut <= best
    assert 0.3 < cut < 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sig.calc_ams(-1, 5), InputError, "`s` must lie in"),
        (lambda: sig.calc_ams(1, 0), InputError, r"`b \+ br` must be greater than 0"),
        (lambda: sig.ams_scan_quick({"prd": [1]}), InputError, "must have a column 'pred'.*Did you mean 'prd'"),
        (lambda: sig.significance_of_cuts([1, 2], [1, 1]), InputError, "got 2 of 2 signal"),
        (lambda: sig.significance_of_cuts([1, np.nan], [0, 1]), InputError, "predictions must be finite; 1"),
        (lambda: sig.significance_of_cuts([1], [0, 1]), ShapeError, r"got \[1, 2, 1\]"),
        (lambda: sig.ams_scan_slow(scored(), start_cut=2), InputError, "`start_cut` must be at most the largest"),
        (lambda: sig.MultiAMS([]), InputError, "`classes`"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_metrics_give_the_best_significance():
    df = scored()
    metric = sig.AMS(n_total=4000)
    metric.preds = torch.from_numpy(df["pred"])[:, None]
    metric.targets = torch.from_numpy(df["gen_target"])[:, None]
    metric.weights = torch.from_numpy(df["gen_weight"])
    assert metric.evaluate() == pytest.approx(sig.ams_scan_quick(df, wgt_factor=2)[0])
    assert not metric.lower_metric_better
    multi = sig.MultiAMS([1])
    multi.preds = torch.stack([1 - metric.preds[:, 0], metric.preds[:, 0]], 1)
    multi.targets, multi.weights = metric.targets[:, 0], metric.weights
    assert multi.evaluate() == pytest.approx(sig.ams_scan_quick(df)[0])
