"""Uncertainties of importances by permutation."""

from __future__ import annotations

import numpy as np

from diffdet.runs.train_importance import permutation_importance


class Flat:
    """Folds of flat features."""

    row_wise = None

    def __init__(self, parts):
        self.parts = parts
        self.data = self.folds = self
        self.cont_feats = ["a", "b"]

    def get_use_cat_feats(self):
        return []

    def get_fold(self, idx):
        return self.parts[idx]

    def fold_size(self, idx):
        return len(self.parts[idx]["targets"])


def importance(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    folds = Flat([{"inputs": x, "targets": x[:, :1] + rng.normal(size=(n, 1)), "weights": None}])
    told = permutation_importance(
        lambda inputs, mask: inputs[:, :1],
        lambda pred, fold: float(np.mean((pred - fold["targets"]) ** 2)),
        folds,
        [0],
        20,
        seed,
        lambda done, n: None,
    )
    return {entry["feature"]: (entry["importance"], entry["importance_se"]) for entry in told}


def test_standard_errors_cover_which_events_there_are():
    """Not permutations alone: with these many they say next to nothing about another sample of events."""
    found = [importance(seed, 300) for seed in range(60)]
    values, errors = np.array([one["a"] for one in found]).T
    assert 0.6 < values.std(ddof=1) / errors.mean() < 1.5
    assert values.mean() > 5 * errors.mean()


def test_a_feature_without_influence_is_worth_nothing():
    assert importance(0, 300)["b"] == (0.0, 0.0)
