"""Many models, and their weighted mean."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, StorageError
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import CycleLR, OneCycle
from diffdet.nn.ensemble.ensemble import Ensemble
from diffdet.nn.metrics import RocAucScore
from diffdet.nn.models.model import Model
from diffdet.nn.training.train import fold_plan, train_models
from nn.tiny import bits, builder, data, model

X = np.random.default_rng(1).normal(size=(30, 4))


def constant(value):
    """A model that predicts one number."""
    found = model("regression")
    weights = {key: torch.zeros_like(tensor) for key, tensor in found.get_weights().items()}
    weights["2.dense.bias"] += value
    found.set_weights(weights)
    return found


# ------------------------------------------------------------------------------------------------------------- ensemble
def test_the_prediction_is_the_weighted_mean():
    ensemble = Ensemble.from_models([constant(1.0), constant(4.0)], [3.0, 1.0])
    assert ensemble.weights == [0.75, 0.25]
    np.testing.assert_allclose(ensemble.predict(X), 1.75, rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict(X, n_models=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict(X, as_np=False).numpy(), 1.75, rtol=1e-6)
    folds = data("regression", n_folds=2)
    assert ensemble.predict(folds, pred_name="both") is None
    np.testing.assert_allclose(folds.saved["both"][1], 1.75, rtol=1e-6)
    assert len(ensemble) == 2
    assert ensemble[1][1] == 0.25


def test_probabilities_are_averaged_not_their_logarithms():
    models = [model("multiclass", seed=k) for k in range(2)]
    expected = np.mean([found.predict(X) for found in models], axis=0)
    ensemble = Ensemble.from_models(models)
    np.testing.assert_allclose(ensemble.predict(X), expected, rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict(X, as_np=False).exp().numpy(), expected, rtol=1e-6)


def test_twelve_models_keep_their_weights_when_saved(tmp_path):
    """The original read files in the order of their names, 0, 1, 10, 11, 2: weights went to other models."""
    ensemble = Ensemble.from_models([constant(float(k)) for k in range(12)], [2.0**k for k in range(12)])
    ensemble.save(tmp_path / "ensemble", feats=["a", "b", "c", "d"])
    again = Ensemble.from_save(tmp_path / "ensemble")
    assert again.weights == ensemble.weights
    np.testing.assert_array_equal(again.predict(X), ensemble.predict(X))
    assert json.loads((tmp_path / "ensemble" / "ensemble.json").read_text())["feats"] == ["a", "b", "c", "d"]


def test_saving_makes_one_folder_and_replaces_only_when_asked(tmp_path):
    ensemble = Ensemble.from_models([constant(1.0), constant(2.0)])
    ensemble.save(tmp_path / "name")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name"]
    with pytest.raises(InputError, match="exists: pass `overwrite=True`"):
        ensemble.save(tmp_path / "name")
    Ensemble.from_models([constant(5.0)]).save(tmp_path / "name", overwrite=True)
    np.testing.assert_allclose(Ensemble.from_save(tmp_path / "name").predict(X), 5.0, rtol=1e-6)
    assert len(list((tmp_path / "name").glob("*.safetensors"))) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.h5").write_text("mine")
    with pytest.raises(InputError, match="exists: choose another name"):
        ensemble.save(tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "precious.h5").read_text() == "mine"


def test_folders_that_are_no_ensembles_are_refused(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        Ensemble.from_save(tmp_path)
    Ensemble.from_models([constant(1.0)]).save(tmp_path / "e")
    path = tmp_path / "e" / "ensemble.json"
    content = json.loads(path.read_text())
    for change, message in [
        ({"format": "x"}, "must hold the description of an ensemble"),
        ({"members": [{"file": "../outside", "weight": 1.0}]}, "must name files beside it"),
    ]:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(CheckpointError, match=message):
            Ensemble.from_save(tmp_path / "e")
    path.write_text("{")
    with pytest.raises(FileDamagedError, match="no JSON"):
        Ensemble.from_save(tmp_path / "e")


def test_impossible_ensembles_are_refused():
    with pytest.raises(InputError, match="must hold at least one model"):
        Ensemble.from_models([])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(InputError, match="`weights` must hold one finite number"):
            Ensemble.from_models([constant(1.0), constant(2.0)], weights)
    with pytest.raises(InputError, match="the ensemble has no models"):
        Ensemble().predict(X)


# -------------------------------------------------------------------------------------------------------- train_models
def test_plans_of_folds():
    assert fold_plan(3, 4) == [([1, 2], 0), ([0, 2], 1), ([0, 1], 2), ([1, 2], 0)]
    assert fold_plan(4, 2, excl_idxs=[1]) == [([2, 3], 0), ([0, 3], 2)]
    plan = fold_plan(7, 3, unique_trn_idxs=True)
    assert sorted(idx for trn_idxs, _ in plan for idx in trn_idxs) == list(range(7))
    assert all(val_idx not in trn_idxs for trn_idxs, val_idx in plan)
    for bad in ({"n_models": 0}, {"n_models": 2, "excl_idxs": [0, 1]}, {"n_models": 4, "unique_trn_idxs": True}):
        with pytest.raises(InputError):
            fold_plan(3, **bad)


def train(savepath, n_models=3, **settings):
    return train_models(
        data(),
        n_models,
        30,
        builder(),
        **{
            "n_epochs": 3,
            "patience": 3,
            "cb_partials": [partial(OneCycle, (1, 2), (1e-3, 1e-2))],
            "metric_partials": [RocAucScore],
            "savepath": savepath,
            "seed": 0,
            **settings,
        },
    )


def test_models_are_trained_and_the_best_make_an_ensemble(tmp_path):
    results, histories, _ = train(tmp_path)
    folds = data()
    for k, result in enumerate(results):
        found = Model.from_save(tmp_path / f"model_id_{k}" / f"train_{k}.h5", builder())
        assert result["loss"] == pytest.approx(found.evaluate(folds, idxs=[k]), rel=1e-5)
        assert len(histories[k]["losses"]["Validation"]) == 3
        assert set(result) == {"path", "number", "loss", "RocAucScore"}
    ensemble = Ensemble.from_results(results, 2, builder())
    order = np.argsort([result["loss"] for result in results])[:2]
    inverse = np.array([1 / results[k]["loss"] for k in order])
    np.testing.assert_allclose(ensemble.weights, inverse / inverse.sum())
    parts = [Model.from_save(tmp_path / f"model_id_{k}" / f"train_{k}.h5", builder()).predict(X) for k in order]
    np.testing.assert_allclose(
        ensemble.predict(X), sum(w * p for w, p in zip(ensemble.weights, parts, strict=True)), rtol=1e-6
    )
    by_area = Ensemble.from_results(results, 1, builder(), metric="RocAucScore", higher_metric_better=True)
    assert by_area.results[0]["RocAucScore"] == max(result["RocAucScore"] for result in results)
    with pytest.raises(InputError, match="`size` must be from 1 to the 3 models"):
        Ensemble.from_results(results, 4, builder())
    with pytest.raises(InputError, match=r"`metric` must be one of \['RocAucScore', 'loss'\]; got 'auc'"):
        Ensemble.from_results(results, 1, builder(), metric="auc")
    with pytest.raises(InputError, match="`savepath` holds models"):
        train(tmp_path)


def test_a_training_of_models_that_was_killed_goes_on(tmp_path):
    class Kill(BaseException):
        pass

    class KillAt(Callback):
        left = 30
        transient = ("left",)

        def on_batch_begin(self):
            KillAt.left -= 1
            if KillAt.left == 0:
                raise Kill

    partials = [partial(OneCycle, (1, 2), (1e-3, 1e-2)), KillAt]
    with pytest.raises(Kill):
        train(tmp_path / "killed", cb_partials=partials)
    KillAt.left = 0
    found = train(tmp_path / "killed", cb_partials=partials, resume=True)
    calm = train(tmp_path / "calm", cb_partials=partials)
    assert found[1:] == calm[1:]
    for k in range(3):
        weights = [
            bits(Model.from_save(tmp_path / name / f"model_id_{k}" / f"train_{k}.h5", builder()))
            for name in ("killed", "calm")
        ]
        assert weights[0] == weights[1]
        assert {**found[0][k], "path": ""} == {**calm[0][k], "path": ""}
    assert train(tmp_path / "killed", cb_partials=partials, resume=True) == found


def test_snapshots_of_cycles_join_the_ensemble(tmp_path):
    results, _, cycle_losses = train(
        tmp_path, 2, n_epochs=4, cb_partials=[partial(CycleLR, (1e-4, 1e-2), cycle_save=True)], metric_partials=None
    )
    assert [sorted(losses) for losses in cycle_losses] == [[1, 2, 3, 4]] * 2
    settings = {"cycle_losses": cycle_losses, "n_cycles": 2}
    ensemble = Ensemble.from_results(results, 2, builder(), snapshot_args=settings)
    assert len(ensemble) == 2 + 2 * 2
    only = Ensemble.from_results(results, 1, builder(), snapshot_args={**settings, "load_cycles_only": True})
    assert len(only) == 2
    best = int(np.argmin([result["loss"] for result in results]))
    inverse = np.array([1 / cycle_losses[best][cycle] for cycle in (3, 4)])
    np.testing.assert_allclose(only.weights, inverse / inverse.sum())
    with pytest.raises(InputError, match="`snapshot_args` must hold 'cycle_losses'"):
        Ensemble.from_results(results, 1, builder(), snapshot_args={"n_cycles": 1})
