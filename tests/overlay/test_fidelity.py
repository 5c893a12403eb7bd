"""Comparing samples: nothing to tell between equal ones, much between different ones; baselines are what they say."""

from __future__ import annotations

import pytest
import torch

from diffdet.core.random import Stream
from diffdet.overlay.clusters.generator import ClusterGenerator
from diffdet.overlay.fidelity import baselines
from diffdet.overlay.fidelity.metrics import METRICS, TARGETS, compare, missed
from diffdet.overlay.fidelity.published import PUBLISHED, against_published, reference
from diffdet.overlay.fidelity.summary import summarise


@pytest.fixture(scope="module")
def events():
    return ClusterGenerator().sample(16, seed=21)


@pytest.fixture(scope="module")
def halves(events):
    return summarise("one", [events.select(0, 8)]), summarise("other", [events.select(8, 12), events.select(12, 16)])


@pytest.fixture(scope="module")
def floor(halves):
    return compare(*halves)


def test_a_sample_is_at_no_distance_from_itself(halves):
    figures = compare(halves[0], halves[0])
    assert set(figures) == set(METRICS)
    for name, value in figures.items():
        if name not in ("auc", "copies"):
            assert value == pytest.approx(0, abs=1e-6), name
    assert figures["copies"] == 1
    assert figures["auc"] == pytest.approx(0.5, abs=0.03)


def test_two_halves_of_a_sample_cannot_be_told_apart(floor):
    assert floor["auc"] < 0.53
    assert floor["charge_w1"] < 0.2
    assert floor["frechet"] < 1  # eight events know means and spreads of a sensor to a third
    assert floor["copies"] < 0.03


def test_what_is_counted_does_not_depend_on_blocks(events, halves):
    again = summarise("again", [events.select(row, row + 1) for row in range(8)])
    for name in ("digits", "charges", "sizes", "profile_v", "features", "image_features"):
        assert torch.allclose(getattr(again, name), getattr(halves[0], name)), name
    assert len(again.events) == len(halves[0].events)


def test_another_charge_and_another_number_of_digits_are_seen(events, halves, floor):
    generator = torch.Generator().manual_seed(0)
    kept = events.select(0, 8).keep(torch.rand(len(events.select(0, 8)), generator=generator) < 0.9)
    figures = compare(summarise("thinned", [kept]), halves[1])
    assert figures["occupancy_bias"] == pytest.approx(0.1, abs=0.02)
    assert figures["auc"] > floor["auc"] + 0.01
    assert figures["size_w1"] > 5 * floor["size_w1"]


def test_targets_that_the_floor_misses_as_well_are_not_called_missed():
    good = dict.fromkeys(METRICS, 0.0)
    bad = good | {"charge_w1": 0.9}
    assert missed(good, good) == []
    assert missed(bad, good)[0].startswith("Target missed")
    assert "cannot be told" in missed(bad, bad)[0]
    assert set(TARGETS) <= set(METRICS)


def test_bootstrap_shows_sensors_as_they_were_in_some_event(events):
    made = next(iter(baselines.bootstrap(events, 3, Stream("test"))))
    counts, known = made.counts(), events.counts()
    assert all(bool((known[:, sensor] == counts[0, sensor]).any()) for sensor in range(40))
    again = next(iter(baselines.bootstrap(events, 3, Stream("test"))))
    assert made.equal(again)


def test_library_keeps_the_number_of_digits_and_the_charges_of_a_kind_of_sensor(events):
    made = list(baselines.library(events, 12, Stream("test")))
    total = sum(len(block) for block in made) / 12
    assert total == pytest.approx(len(events) / events.n_events, rel=0.03)
    charge = torch.cat([block.charge for block in made]).double().mean().item()
    assert charge == pytest.approx(events.charge.double().mean().item(), rel=0.03)


def test_published_networks_have_the_figures_that_were_derived_from_their_publication():
    networks = reference()["published"]
    assert list(networks) == ["IEA-GAN", "BigGAN-deep", "ContraGAN", "PE-GAN"]
    assert [round(one["charge_w1"], 2) for one in networks.values()] == [2.80, 7.37, 4.74, 4.75]
    assert networks["IEA-GAN"]["occupancy_bias"] == pytest.approx(-0.10, abs=0.005)


def test_published_statistics_are_those_of_the_reference_file(shared_dir):
    import json

    real = json.loads((shared_dir / "data" / "pxd-reference-stats.json").read_text())["stats"]["real"]
    mine = reference()["stats"]["real"]
    assert mine["charge_counts_7_255"] == real["charge_counts_7_255"]
    assert mine["occupancy_per_sensor"] == pytest.approx(real["occupancy_per_sensor"], rel=1e-6)


def test_ours_is_nearer_to_the_published_statistics_than_the_best_published_network(halves):
    figures, best = against_published(halves[0]), reference()["published"]["IEA-GAN"]
    assert set(figures) == set(PUBLISHED)
    for name in ("occupancy_bias", "occupancy_sensor_rms", "charge_w1", "charge_ks", "charge_sensor"):
        assert abs(figures[name]) < abs(best[name]) / 2, name
