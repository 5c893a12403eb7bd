"""The stand-in against the statistics that it is tuned to, and the planes in space."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.kernels.distances import ks_distance
from diffdet.overlay.sensors import PXD
from diffdet.overlay.standin import populations
from diffdet.overlay.standin.geometry import Geometry
from diffdet.overlay.standin.sample import simulate_digits
from diffdet.overlay.standin.simulation import Rates, StandIn, default_rates
from diffdet.overlay.standin.tuning import Reference


@pytest.fixture(scope="module")
def events():
    """Eight events."""
    return simulate_digits(8, seed=7)


@pytest.fixture(scope="module")
def reference(shared_dir):
    """Statistics that others have published."""
    return Reference.load(shared_dir / "data" / "pxd-reference-stats.json")


def test_an_event_is_the_same_alone_and_among_others(events):
    alone = simulate_digits([5], seed=7)
    assert alone.numbers.tolist() == [5]
    for name in ("sensor", "u", "v", "charge"):
        assert torch.equal(getattr(alone, name), getattr(events.select(5, 6), name))


def test_digits_are_above_the_threshold_and_below_saturation(events):
    assert events.charge.min() == 7
    assert 200 < events.charge.max() <= 255


def test_number_of_digits_within_four_standard_errors_of_the_published_one(events, reference):
    total = events.counts().sum(1).double()
    # variance over mean of a sensor is 12, and sensors are nearly independent
    error = math.sqrt(12.5 * 69344 / events.n_events)
    assert abs(total.mean() - reference.digits.sum()) < 4 * error + 0.005 * 69344


def test_spectrum_of_charges_has_a_ks_distance_below_002(events, reference):
    counts = torch.bincount(events.charge.to(torch.int64), minlength=256).double()
    assert ks_distance(counts, reference.spectrum) < 0.02


def test_layers_and_sides_have_their_mean_charges_within_half_an_adu(events, reference):
    sums = torch.zeros(40, dtype=torch.float64).index_add_(0, events.sensor.to(torch.int64), events.charge.double())
    counts = events.counts().sum(0).double()
    for rows in (slice(0, 16, 2), slice(1, 16, 2), slice(16, 40, 2), slice(17, 40, 2)):
        wanted = (reference.mean_charge * reference.digits)[rows].sum() / reference.digits[rows].sum()
        assert abs(sums[rows].sum() / counts[rows].sum() - wanted) < 0.6


def test_missing_sensors_are_empty_and_leave_the_others_as_they_are(events):
    found = StandIn(seed=7, missing=(0, 39)).columns(0)
    assert not ((found[0] == 0) | (found[0] == 39)).any()
    first = events.select(0, 1)
    rest = (first.sensor != 0) & (first.sensor != 39)
    assert len(found[0]) == int(rest.sum())


def test_twice_the_rates_give_about_twice_the_digits():
    one, two = (len(StandIn(seed=1, scale=scale).columns(0)[0]) for scale in (0.2, 0.4))
    assert 1.7 < two / one < 2.3


def test_sources_can_be_switched_off_and_unknown_ones_are_refused():
    only = StandIn(seed=1, sources={"passing": 0.0, "stopping": 0.0, "recoil": 0.0}).columns(0)
    assert 0 < len(only[0]) < 45_000
    with pytest.raises(InputError, match="`sources` must name populations"):
        StandIn(sources={"neutrinos": 1.0})
    with pytest.raises(InputError, match="at least 0"):
        StandIn(scale=-1.0)


def test_v_cells_agree_with_the_edges_of_the_sensors():
    geometry = Geometry()
    for index in (0, 1, 16, 17):
        edges = torch.tensor(PXD[index].v_edges, dtype=torch.float64) + 0.5 * PXD[index].length
        middle = 0.5 * (edges[1:] + edges[:-1])
        cell, pitch = geometry.v_cell(middle, torch.full((768,), index))
        assert torch.allclose(cell, torch.arange(768, dtype=torch.float64) + 0.5, atol=1e-3)
        assert torch.allclose(pitch, torch.diff(edges).to(pitch), rtol=1e-4)


def test_curlers_below_the_reach_of_layer_2_hit_layer_1_only():
    kind = torch.zeros(3000, dtype=torch.int64)
    found = populations.curl(kind, Geometry(), torch.Generator().manual_seed(0))
    assert len(found.sensor) > 500
    # 4.5 MeV curl within 20 mm of the beam
    assert (found.sensor < 16).all()


def test_rates_survive_a_file_and_those_of_other_populations_are_refused(tmp_path):
    rates = default_rates()
    rates.save(tmp_path / "rates.json")
    again = Rates.load(tmp_path / "rates.json")
    assert torch.equal(rates.local, again.local)
    (tmp_path / "rates.json").write_text("{}")
    with pytest.raises(InputError, match="file of rates"):
        Rates.load(tmp_path / "rates.json")
