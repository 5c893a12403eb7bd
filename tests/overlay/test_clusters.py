"""The generator `clusters`: published figures, keyed events, weights from files, learning from a sample."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffdet.core.errors import CheckpointError, InputError
from diffdet.overlay.clustering import find_clusters
from diffdet.overlay.clusters.fit import fit_clusters
from diffdet.overlay.clusters.generator import ClusterGenerator
from diffdet.overlay.clusters.weights import FORMAT, ClusterWeights, default_path
from diffdet.overlay.conditions import Conditions
from diffdet.overlay.digits import Digits
from diffdet.overlay.fidelity.published import against_published
from diffdet.overlay.fidelity.summary import Summary


@pytest.fixture(scope="module")
def generator():
    return ClusterGenerator()


@pytest.fixture(scope="module")
def figures(generator):
    """Figures of 400 events beside the published ones."""
    digits = generator.sample(400, seed=11)
    sensor, charge = digits.sensor.to(torch.int64), digits.charge.to(torch.int64)
    charges = torch.bincount(sensor * 256 + charge, minlength=40 * 256).reshape(40, 256).double()
    return against_published(Summary("clusters", digits=digits.counts().double(), charges=charges))


def test_occupancy_of_every_sensor_within_two_percent_of_the_published_one(figures):
    # 400 events know it to 0.3 to 0.6 %
    assert figures["occupancy_sensor"] < 0.02


def test_variance_over_mean_within_ten_percent_in_both_layers(figures):
    assert abs(figures["variance_over_mean"]) < 0.1


def test_spectrum_of_charges_within_half_an_adu(figures):
    assert figures["charge_w1"] < 0.5


def test_an_event_is_the_same_alone_in_another_order_and_in_threads(generator):
    all_of_them = generator.sample(4, seed=3, experiment=7, run=1)
    alone = generator.sample_events([2], seed=3, experiment=7, run=1)
    turned = ClusterGenerator(threads=3).sample_events([3, 2, 1], seed=3, experiment=7, run=1)
    assert alone.equal(all_of_them.select(2, 3))
    assert turned.select(1, 2).equal(alone)
    other = generator.sample_events([2], seed=3, experiment=7, run=2)
    assert not torch.equal(other.charge[:100], alone.charge[:100])


def test_digits_are_what_they_promise(generator):
    digits = generator.sample(3, seed=1)
    columns = (digits.event, digits.sensor, digits.u, digits.v, digits.charge)
    # checks ranges and repeats; sorts, so equality says that the order was right
    assert Digits.from_columns(*columns, numbers=digits.numbers).equal(digits)
    assert digits.charge.min() >= 7


def test_sensors_differ_and_missing_ones_are_empty():
    digits = ClusterGenerator(conditions=Conditions(missing=("2.1.1",))).sample(3)
    counts = digits.counts().double().mean(0)
    assert counts[16] == 0
    assert counts[0] > 2.5 * counts[17:].max()


def test_scale_changes_the_number_of_digits(generator):
    one = generator.sample(4, seed=2).counts().sum()
    assert 0.45 < ClusterGenerator(scale=0.5).sample(4, seed=2).counts().sum() / one < 0.55
    with pytest.raises(InputError, match="scale"):
        ClusterGenerator(scale=-1)


def test_the_weights_say_that_they_have_seen_no_real_event(generator):
    about = generator.describe()
    assert "stand-in" in about["trained_on"]
    assert "not on Belle II data" in about["trained_on"]
    assert default_path().stat().st_size < 2_000_000
    assert len(about["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("rate"), "missing rate"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda t: t.update(rate=torch.zeros(3)), r"rate: expected torch.float32 of shape \(40,\)"),
        (lambda t: t.update(rate=torch.full((40,), torch.nan)), "rate: expected finite"),
        (lambda t: t.update(rate=torch.full((40,), -1.0)), "rate: expected numbers of at least 0"),
        (lambda t: t.update(shape_draws=t["shape_draws"] + 1), "shape_draws: expected"),
        (lambda t: t.update(shape_u=t["shape_u"][:-1].clone()), "shape_u, shape_v"),
    ],
)
def test_faulty_weights_are_named(tmp_path, change, message):
    tensors = load_file(str(default_path()))
    change(tensors)
    save_file(tensors, str(tmp_path / "w.safetensors"), {"format": FORMAT, "about": "{}"})
    with pytest.raises(CheckpointError, match=message):
        ClusterGenerator.from_checkpoint(tmp_path / "w.safetensors")


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must be a file"):
        ClusterGenerator.from_checkpoint(tmp_path / "none")
    (tmp_path / "cut").write_bytes(default_path().read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="as safetensors"):
        ClusterGenerator.from_checkpoint(tmp_path / "cut")
    save_file({"rate": torch.zeros(40)}, str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="format"):
        ClusterGenerator.from_checkpoint(tmp_path / "other")


def test_what_is_learnt_from_a_sample_is_like_the_sample(generator):
    sample = generator.sample(24, seed=5)
    weights = fit_clusters(sample, rounds=2, check_events=8, max_shapes=4000)
    again = ClusterGenerator(weights).sample(24, seed=6)
    one, other = sample.counts().double().mean(0), again.counts().double().mean(0)
    assert (other.sum() / one.sum() - 1).abs() < 0.02
    sizes, found = find_clusters(sample).size.double(), find_clusters(again).size.double()
    assert found.mean().item() == pytest.approx(sizes.mean().item(), rel=0.04)
    assert again.charge.double().mean().item() == pytest.approx(sample.charge.double().mean().item(), rel=0.02)


def test_a_sample_without_events_teaches_nothing():
    with pytest.raises(InputError, match="at least 2 events"):
        fit_clusters(Digits.empty([0]))


def test_weights_survive_a_file(tmp_path, generator):
    generator.weights.save(tmp_path / "w.safetensors")
    again = ClusterGenerator(ClusterWeights.load(tmp_path / "w.safetensors"))
    assert again.sample(1).equal(generator.sample(1))
