"""Importance by permutation: what matters is found, what does not is not, and two routes agree."""

from __future__ import annotations

import numpy as np
import pytest

from diffdet.core.errors import InputError
from diffdet.nn.data.fold_yielder import ArrayFoldYielder
from diffdet.nn.interpretation import get_ensemble_feat_importance, get_nn_feat_importance
from diffdet.nn.interpretation.features import bootstrap_error


class Known:
    """A predictor whose use of features is known: a, and the sum of x over objects."""

    objective = "regression"

    @staticmethod
    def loss():
        from diffdet.nn.losses import WeightedMSE

        return WeightedMSE()

    def predict(self, inputs, bs=None, mask=None):
        flat, matrix = inputs
        return (3 * flat[:, 0] + (matrix[:, :, 0] * mask).sum(1))[:, None]


def folds(n=600):
    draw = np.random.default_rng(0)
    flat, matrix = draw.normal(size=(n, 2)), draw.normal(size=(n, 4, 2))
    mask = np.arange(4) < draw.integers(1, 5, n)[:, None]
    matrix[~mask] = 0
    targets = 3 * flat[:, 0] + matrix[:, :, 0].sum(1) + draw.normal(size=n)
    return ArrayFoldYielder(
        *((flat, matrix), targets, None, mask),
        n_folds=6,
        cont_feats=["a", "b"],
        matrix_feats={"vecs": list("wxyz"), "feats_per_vec": ["x", "y"], "row_wise": True},
    )


def test_features_that_matter_are_found_and_others_are_not():
    found = get_nn_feat_importance(Known(), folds(), repeats=2)
    assert found["Feature"][:2] == ["a", "objects: x"]
    values = dict(zip(found["Feature"], found["Importance"], strict=True))
    # Permuting x of variance v adds 2 v to the error: 18 for a, against a noise of 1.
    assert values["a"] == pytest.approx(18, rel=0.2)
    assert values["b"] == values["objects: y"] == 0
    kinds = dict(zip(found["Feature"], found["Kind"], strict=True))
    assert (kinds["b"], kinds["objects: y"]) == ("flat", "objects")
    assert 0 < found["Uncertainty"][0] < 0.2 * values["a"]


def test_absent_objects_stay_absent():
    seen = []

    class Watching(Known):
        def predict(self, inputs, bs=None, mask=None):
            seen.append(inputs[1][~mask])
            return super().predict(inputs, bs, mask)

    get_nn_feat_importance(Watching(), folds())
    assert not any(values.any() for values in seen)


def test_the_seed_decides_and_data_stay_as_they_are():
    fy = folds()
    before = [np.array(fold["inputs"][0]) for fold in fy]
    first = get_nn_feat_importance(Known(), fy, seed=1)["Importance"]
    assert np.array_equal(first, get_nn_feat_importance(Known(), fy, seed=1)["Importance"])
    assert not np.array_equal(first, get_nn_feat_importance(Known(), fy, seed=2)["Importance"])
    assert all(np.array_equal(a, fold["inputs"][0]) for a, fold in zip(before, fy, strict=True))


def test_another_figure_can_be_used():
    def mean_error(preds, targets, weights):
        return float(np.abs(preds - targets).mean())

    found = get_nn_feat_importance(Known(), folds(), eval_metric=mean_error)
    assert found["Feature"][0] == "a"
    assert found["Importance"][0] < 8


def test_an_ensemble_of_one_model_looks_at_the_same():
    class One:
        models = (Known(),)
        objective = None

        def predict(self, inputs, bs=None, mask=None):
            return self.models[0].predict(inputs, bs, mask)

    one, ensemble = get_nn_feat_importance(Known(), folds()), get_ensemble_feat_importance(One(), folds())
    assert one["Feature"] == ensemble["Feature"]
    assert np.array_equal(one["Importance"], ensemble["Importance"])


def test_a_trained_model_tells_which_feature_it_learnt_from(tmp_path):
    from diffdet.nn.models.model import Model
    from diffdet.nn.models.model_builder import ModelBuilder

    draw = np.random.default_rng(1)
    x = draw.normal(size=(2000, 3)).astype(np.float32)
    fy = ArrayFoldYielder(x, (x[:, 1] > 0).astype(int), n_folds=4, cont_feats=["a", "b", "c"])
    args = {"body": {"depth": 1, "width": 8, "act": "swish"}}
    model = Model(ModelBuilder("classification", 1, fy.cont_feats, args, {"lr": 0.02}), seed=1)
    model.fit(4, fy, 50, trn_idxs=[0, 1, 2], seed=1)
    found = model.get_feat_importance(fy, idxs=[3], repeats=3, savename=None)
    assert found["Feature"][0] == "b"
    assert found["Importance"][0] > 20 * abs(found["Importance"][1])


def test_the_error_of_a_mean_is_right():
    values = np.random.default_rng(0).normal(size=400)
    assert bootstrap_error(values, 2000, 0, "x") == pytest.approx(values.std() / 20, rel=0.1)
    assert bootstrap_error(np.ones(1), 10, 0) == 0


def test_folds_without_targets_are_refused():
    fy = ArrayFoldYielder(np.zeros((10, 2)), n_folds=2)
    with pytest.raises(InputError, match=r"folds \[0, 1\] have none"):
        get_nn_feat_importance(Known(), fy)
    with pytest.raises(InputError, match="must be at least one"):
        get_nn_feat_importance(Known(), folds(), repeats=0)
