"""Built-in problems: what was put in comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.kernels.phase_space import many_body_decay
from diffdet.nn.examples import mass_regression, signal_background
from diffdet.nn.examples.events import LARGEST_WEIGHT, LARGEST_WEIGHT_HEAVY
from diffdet.nn.physics.kinematics import check_four_momenta

MAKERS = {"signal_background": signal_background.make, "mass_regression": mass_regression.make}


@pytest.fixture(scope="module")
def samples():
    return {name: make(4000, seed=3) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_arrays_fit_together(samples, name):
    events = samples[name]
    assert len(events) == 4000
    assert events.flat.shape == (4000, len(events.cont_feats) + len(events.cat_feats))
    assert events.matrix.shape == (4000, len(events.vecs), len(events.feats_per_vec))
    assert events.mask.shape == events.momenta.shape[:2] == (4000, len(events.vecs))
    assert np.isfinite(events.flat).all()
    assert not events.matrix[~events.mask].any()
    check_four_momenta(events.momenta, events.mask)


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_decides(name):
    a, b, c = (MAKERS[name](200, seed) for seed in (1, 1, 2))
    assert np.array_equal(a.matrix, b.matrix)
    assert not np.array_equal(a.targets, c.targets)


@pytest.mark.parametrize("name", MAKERS)
def test_folds_are_scaled_and_hold_masks(samples, name):
    events = samples[name]
    fy = events.fold_yielder(5, seed=1)
    fold = fy[0]
    flat, matrix = fold["inputs"]
    n_cont = len(events.cont_feats)
    everything = np.concatenate([f["inputs"][0] for f in fy])
    assert np.allclose(np.average(everything[:, :n_cont], axis=0, weights=fy.get_column("weights")), 0, atol=1e-3)
    assert not matrix[~fold["mask"]].any()
    assert fy.get_use_cat_feats() == list(events.cat_feats)
    assert np.allclose(
        fy.input_pipe.inverse_transform(flat[:, :n_cont]), events.flat[fy.sample_rows(0)][:, :n_cont], atol=0.05
    )


def test_the_resonance_is_where_it_was_put(samples):
    """Two jets and two leptons of signal make the Z and the X, within the resolution of jets."""
    events = samples["signal_background"]
    signal = events.targets == 1
    assert signal.sum() == 2000
    columns = dict(zip(events.cont_feats, events.flat[:, : len(events.cont_feats)].T, strict=True))
    two_jets = signal & (events.mask.sum(1) == 4)
    assert np.median(columns["jj_mass"][two_jets]) == pytest.approx(91, abs=5)
    assert np.median(columns["lljj_mass"][two_jets]) == pytest.approx(400, abs=12)
    assert np.median(columns["ll_mass"]) == pytest.approx(91.2, abs=0.3)
    near = np.abs(columns["lljj_mass"] - 400) < 40
    assert near[signal].mean() > 3 * near[~signal].mean()


def test_features_are_those_of_the_objects(samples):
    events = samples["signal_background"]
    p = events.momenta
    lljj = p[:, [0, 1, 2, 3]].sum(1)
    mass = np.sqrt(np.maximum(lljj[:, 3] ** 2 - (lljj[:, :3] ** 2).sum(1), 0))
    assert np.allclose(events.flat[:, events.cont_feats.index("lljj_mass")], mass)
    assert np.array_equal(events.flat[:, -1], events.mask[:, 2:].sum(1) - 2)
    cartesian = signal_background.make(200, 3, objects="cartesian")
    assert np.array_equal(cartesian.matrix, cartesian.momenta)


def test_yields_are_those_expected_and_classes_balanced(samples):
    events = samples["signal_background"]
    for k, expected in enumerate(signal_background.EXPECTED.values()):
        assert events.yields[events.extra["process"] == k].sum() == pytest.approx(expected)
    for k in (0, 1):
        assert events.weights[events.targets == k].mean() == pytest.approx(1, rel=1e-5)
    assert len(np.unique(events.weights[events.targets == 0])) == 2


def test_electrons_and_muons_are_lost_at_their_own_rates(samples):
    muons = samples["signal_background"].flat[:, -2].mean()
    assert muons == pytest.approx(0.95**2 / (0.95**2 + 0.85**2), abs=0.03)


def test_the_visible_mass_is_right_where_all_is_seen_and_low_otherwise(samples):
    events = samples["mass_regression"]
    ratio = events.extra["vis_mass"] / events.targets
    seen = events.mask.sum(1) == events.extra["n_products"]
    assert np.median(ratio[seen]) == pytest.approx(1, abs=0.01)
    assert np.median(ratio[~seen]) < 0.9
    assert set(events.mask.sum(1)) == {2, 3, 4, 5, 6}
    low, high = events.targets.min(), events.targets.max()
    assert mass_regression.M_MIN <= low < 55
    assert 245 < high <= mass_regression.M_MAX


@pytest.mark.parametrize(
    ("n", "heavy", "bound"),
    [
        *((n, 0.0, bound) for n, bound in LARGEST_WEIGHT.items()),
        *((n, heavy, bound) for n, bound in LARGEST_WEIGHT_HEAVY.items() for heavy in (0.1, 0.5, 0.9)),
    ],
)
def test_phase_space_weights_stay_below_their_bounds(n, heavy, bound):
    u = torch.rand(100_000, 3 * n - 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masses = torch.zeros(100_000, n, dtype=torch.float64)
    masses[:, -1] = heavy
    at_rest = torch.tensor([0, 0, 0, 1.0], dtype=torch.float64).expand(100_000, 4)
    weights = many_body_decay(at_rest, masses, u)[1]
    assert 0.7 * bound < weights.max() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_too_few_events_are_refused(name):
    with pytest.raises(InputError, match="`n_events` must be at least 20; got 3"):
        MAKERS[name](3)
