"""Fits, predictions and mixed precision on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import NonFiniteError
from diffdet.nn.models.model import Model
from nn.tiny import bits, builder, data

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("bulk_move", [True, False])
def test_a_fit_on_the_device_ends_near_that_on_the_cpu(bulk_move):
    weights = []
    for device in ("cpu", "cuda"):
        found = Model(builder("regression"), seed=0, device="cpu").to(device)
        found.fit(3, data("regression"), 30, bulk_move, val_idx=0, seed=1)
        assert found.device.type == device
        weights.append(np.concatenate([np.ravel(value) for value in bits(found).values()]))
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-3)


@pytest.mark.parametrize("amp", [True, "bfloat16", "float16"])
def test_mixed_precision_learns_as_well(amp):
    losses = []
    for how in (False, amp):
        found = Model(builder("regression", opt_args={"lr": 0.02}), seed=0).to("cuda")
        found.fit(10, data("regression"), 30, val_idx=0, seed=1, amp=how)
        losses.append(found.last_fit.history.rows[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.3)


def test_predictions_come_back_to_the_cpu_as_arrays_only():
    found = Model(builder("multiclass"), seed=0).to("cuda")
    x = np.random.default_rng(0).normal(size=(1000, 4))
    assert isinstance(found.predict(x), np.ndarray)
    assert found.predict(x, as_np=False).device.type == "cuda"
    np.testing.assert_allclose(found.predict(x, bs=100), found.predict(x), rtol=1e-4)


def test_a_model_saved_on_the_device_is_loaded_on_the_cpu(tmp_path):
    found = Model(builder(), seed=0).to("cuda")
    found.fit(1, data(), 30, seed=0)
    found.save(tmp_path / "m.h5")
    other = Model.from_save(tmp_path / "m.h5", builder())
    assert other.device.type == "cpu"
    assert bits(other) == bits(found)


def test_a_loss_that_is_not_finite_ends_the_fit_at_the_end_of_a_fold():
    folds = data("regression")
    folds.folds[1]["targets"][5] = np.nan
    with pytest.raises(NonFiniteError, match="go on from an earlier checkpoint"):
        Model(builder("regression"), seed=0).to("cuda").fit(1, folds, 30, seed=0)
