"""Models: parts, predictions, rates, weights, and files that hold weights, never code."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch

from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, StorageError
from diffdet.nn.callbacks.data_callbacks import ParametrisedPrediction
from diffdet.nn.models.model import Model
from nn.tiny import FEATS, Folds, bits, builder, data, model

X = np.random.default_rng(1).normal(size=(50, 4))


def test_parts_by_number_and_name():
    found = model()
    assert found[0] is found["head"] is found.head is found.model[0]
    assert found[1] is found["body"] is found.body
    assert found[2] is found["tail"] is found.tail
    with pytest.raises(
        InputError, match=r"the parts of a model are head, body, tail; got 'boddy'. Did you mean 'body'"
    ):
        found["boddy"]
    assert found.get_out_size() == 1
    assert found.get_param_count() == sum(p.numel() for p in found.parameters())
    found.freeze_layers()
    assert found.get_param_count() == 0
    assert found.get_param_count(trainable=False) > 0
    found.unfreeze_layers()
    assert found.get_param_count() == found.get_param_count(False)
    assert "inputs: 4 cont, outputs: 1" in repr(found)


def test_an_empty_model_says_what_it_needs(tmp_path):
    empty = Model()
    assert repr(empty) == "Model without network"
    with pytest.raises(InputError, match="pass a `model_builder`"):
        empty.predict(X)
    first = model()
    first.save(tmp_path / "m")
    empty.load(tmp_path / "m", builder())
    assert bits(empty) == bits(first)
    assert "4 cont" in repr(empty)


def test_rates_and_momenta():
    found = model()
    found.set_lr(0.5)
    found.set_mom(0.7)
    assert (found.get_lr(), found.get_mom()) == (0.5, 0.7)
    assert found.opt.param_groups[0]["betas"] == (0.7, 0.999)
    found = model(opt_args={"opt": "sgd", "momentum": 0.3})
    assert found.get_mom() == 0.3
    found.set_mom(0.4)
    assert found.opt.param_groups[0]["momentum"] == 0.4
    with pytest.raises(InputError, match="the optimiser Adagrad has no momentum"):
        model(opt_args={"opt": torch.optim.Adagrad}).get_mom()


def test_weights_are_copies():
    found = model()
    weights = found.get_weights()
    before = bits(found)
    for value in weights.values():
        value.zero_()
    assert bits(found) == before
    found.set_weights(weights)
    assert all(not any(values) for values in bits(found).values())
    with pytest.raises(CheckpointError, match=r"missing '2\.dense\.bias': expected shape"):
        found.set_weights({key: value for key, value in weights.items() if key != "2.dense.bias"})


# ---------------------------------------------------------------------------------------------------------- predictions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_predictions_do_not_depend_on_batches_or_containers(dtype):
    found = model("multiclass").to(dtype=dtype)
    whole = found.predict(X)
    assert whole.shape == (50, 3)
    for bs in (1, 7, 50, 100):
        np.testing.assert_allclose(found.predict(X, bs=bs), whole, rtol=1e-5)
    np.testing.assert_array_equal(found.predict(torch.from_numpy(X)), whole)
    np.testing.assert_array_equal(found.predict(np.asfortranarray(X)), whole)
    np.testing.assert_allclose(found.predict(X[::-1])[::-1], whole, rtol=1e-5)
    np.testing.assert_array_equal(found.predict(X.astype(">f8")), whole)


def test_arrays_of_multiclass_models_are_probabilities_and_tensors_their_logarithms():
    found = model("multiclass")
    array, tensor = found.predict(X), found.predict(X, as_np=False)
    np.testing.assert_allclose(array.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(tensor.exp().numpy(), array, rtol=1e-6)
    assert not tensor.requires_grad


def test_predicting_leaves_mode_and_data_alone():
    found = model(model_args={"body": {"depth": 1, "width": 4, "do": 0.5}})
    found.net.train()
    before = X.copy()
    first = found.predict(X)
    assert found.net.training
    np.testing.assert_array_equal(found.predict(X), first)
    np.testing.assert_array_equal(X, before)
    assert found.fit_params is None


def test_folds_get_their_predictions():
    folds = data(n_folds=3)
    found = model()
    assert found.predict(folds, pred_name="mine") is None
    for idx in range(3):
        np.testing.assert_array_equal(folds.saved["mine"][idx], found.predict(folds.folds[idx]["inputs"])[:, 0])
    folds = data("multiclass", n_folds=1)
    model("multiclass").predict(folds)
    np.testing.assert_allclose(folds.saved["pred"][0].sum(1), 1.0, rtol=1e-6)


def test_variants_of_a_fold_are_averaged():
    class Turned(Folds):
        def get_test_folds(self, idx):
            fold = self.folds[idx]
            return [fold, {**fold, "inputs": -fold["inputs"]}]

    folds = Turned(data(n_folds=1).folds)
    found = model()
    found.predict(folds)
    x = folds.folds[0]["inputs"]
    expected = (found.predict(x) + found.predict(-x))[:, 0] / 2
    np.testing.assert_allclose(folds.saved["pred"][0], expected, rtol=1e-6)


def test_a_parameter_is_set_without_touching_the_callers_array():
    """The original wrote into the array."""
    found = model()
    before, fixed = X.copy(), X.copy()
    fixed[:, 2] = 0.25
    preds = found.predict(X, cbs=ParametrisedPrediction(FEATS, "c", 0.25))
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(preds, found.predict(fixed))
    both = found.predict((X, X)[0], cbs=[ParametrisedPrediction(FEATS, ["c", "a"], [0.25, -1.0])])
    fixed[:, 0] = -1.0
    np.testing.assert_array_equal(both, found.predict(fixed))
    with pytest.raises(InputError, match=r"`param_feat` must be among .*got 'cc'"):
        ParametrisedPrediction(FEATS, "cc", 1.0)
    masked = Model(builder(cont_subsample_rate=0.5, guaranteed_feats=["a", "b"]))
    np.testing.assert_array_equal(
        masked.predict(X, cbs=ParametrisedPrediction(FEATS, "b", 0.5)),
        masked.predict(np.column_stack([X[:, 0], np.full(50, 0.5), X[:, 2:]])),
    )
    with pytest.raises(InputError, match="'d' is masked out"):
        masked.predict(X, cbs=ParametrisedPrediction(FEATS, "d", 0.5))


# --------------------------------------------------------------------------------------------------------------- files
def fitted():
    found = Model(builder(cont_subsample_rate=0.75))
    found.fit(1, data(), 30, seed=0)
    return found


def test_a_model_comes_back_from_its_file_and_trains_on_alike(tmp_path):
    first = fitted()
    first.save(tmp_path / "model.h5")
    second = Model.from_save(tmp_path / "model.h5", builder(cont_subsample_rate=0.75, seed=99))
    assert second.input_mask == first.input_mask
    np.testing.assert_array_equal(second.predict(X), first.predict(X))
    for found in (first, second):
        found.fit(1, data(), 30, seed=1)
    assert bits(first) == bits(second)


def test_files_of_torch_save_are_read_with_numpy_numbers_in_them(tmp_path):
    """The original's own files: rates are numbers of NumPy, the mask is an array."""
    first = fitted()
    first.opt.param_groups[0]["lr"] = np.float64(0.01)
    state = {
        "model": first.net.state_dict(),
        "opt": first.opt.state_dict(),
        "input_mask": np.array(first.input_mask),
    }
    torch.save(state, tmp_path / "old.h5")
    second = Model.from_save(tmp_path / "old.h5", builder(cont_subsample_rate=0.75))
    np.testing.assert_array_equal(second.predict(X), first.predict(X))
    assert second.get_lr() == 0.01


class Bomb:
    """Runs code where it is unpickled."""

    fired = False

    def __reduce__(self):
        return (_fire, ())


def _fire():
    Bomb.fired = True


@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_files_never_run_code(tmp_path, how):
    path = tmp_path / "bad.h5"
    if how == "zip":
        torch.save({"model": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Bomb()}))
    with pytest.raises(FileDamagedError, match="is damaged, or holds more than tensors"):
        model().load(path)
    assert not Bomb.fired


def test_broken_files_are_refused_and_the_model_stays(tmp_path):
    found = model()
    before = bits(found)
    path = tmp_path / "model.h5"
    found.save(path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileDamagedError):
            found.load(path)
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(FileDamagedError, match="checksum"):
        found.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(FileDamagedError):
        found.load(path)
    with pytest.raises(StorageError, match="missing"):
        found.load(tmp_path / "nothing")
    assert bits(found) == before


def test_every_key_that_does_not_fit_is_listed_and_the_model_stays(tmp_path):
    first = model()
    state = dict(first.net.state_dict())
    state["1.layers.0.0.weight"] = torch.zeros(3, 3)
    state["9.other"] = torch.zeros(2)
    del state["2.dense.bias"]
    torch.save({"model": state}, tmp_path / "other.h5")
    found = model(seed=5)
    before, moments = bits(found), repr(found.opt.state_dict())
    with pytest.raises(CheckpointError) as raised:
        found.load(tmp_path / "other.h5")
    text = str(raised.value)
    assert "missing '2.dense.bias': expected shape (1,)" in text
    assert "unexpected '9.other': shape (2,)" in text
    assert "misshaped '1.layers.0.0.weight': expected shape (12, 4), got (3, 3)" in text
    assert bits(found) == before
    assert repr(found.opt.state_dict()) == moments


def test_a_file_of_something_else_is_refused(tmp_path):
    from diffdet.loop import packing

    packing.save_file(tmp_path / "v", {"a": 1}, "volume wrapper")
    with pytest.raises(CheckpointError, match="must hold the state of a nn model; it holds that of a volume wrapper"):
        model().load(tmp_path / "v")
