"""Both models of a detector: closed forms for single figures, pairing, the limit of sharp panels, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.tomography.inference.model_comparison import FIGURES, as_mapping, compare_models
from diffdet.tomography.muon.muon_batch import MuonBatch
from scenes import beam, filled, muons, volume

N = 2000


def sender(*, n: int = N, **options):
    def send(number: int) -> MuonBatch:
        return muons(beam(n, seed=number, **options), first=number * n)

    return send


def compared(*, n_batches: int = 1, beam_options=None, n: int = N, **options):
    made = volume(**{"above": (0.95, 0.85), "below": (0.15, 0.05), "x0": filled("aluminium"), **options})
    return compare_models(made, sender(n=n, **(beam_options or {})), n_batches=n_batches)


def test_a_beam_inside_large_physical_panels_has_their_nominal_figures():
    """Two panels a side, gap d = 0.1 m, sigma 0.5 mm, efficiency 0.9: a share of 0.9^4, hits of 0.5 mm, and angles of
    two components of standard deviation sqrt(2) sigma / d, 68.27 % of which lie below sqrt(-2 ln 0.3173) times it."""
    found = compared(
        span=(3.0, 3.0), res=2000.0, beam_options={"low": 0.4, "high": 0.6, "max_theta": 0.05}, n=20_000, n_batches=2
    ).figures
    for name, expected in (
        ("share_used", 0.9**4),
        ("hit_efficiency", 0.9),
        ("hit_resolution_m", 5e-4),
        ("angle_in_rad", math.sqrt(-2 * math.log(1 - 0.6827)) * math.sqrt(2) * 5e-4 / 0.1),
    ):
        value, error = found[name].physical
        assert value == pytest.approx(expected, abs=max(4 * error, 0.002 * expected)), name


def test_the_smooth_model_far_inside_is_the_gaussian_of_its_distance():
    """At the centre of a Gaussian panel resolution and efficiency are nominal; a pencil beam sees nothing else."""
    found = compared(span=(3.0, 3.0), beam_options={"low": 0.499, "high": 0.501, "max_theta": 0.001}).figures
    assert found["hit_efficiency"].smooth[0] == pytest.approx(0.9, rel=1e-3)
    assert found["hit_resolution_m"].smooth[0] == pytest.approx(1e-4, rel=0.05)
    assert abs(found["share_used"].difference[0]) < 2e-3


def test_sharp_sigmoid_panels_have_no_difference_and_soft_ones_have():
    soft, sharp = (compared(kind="sigmoid", smooth=smooth, span=(0.7, 0.7)).figures for smooth in (0.5, 0.001))
    value, error = soft["share_used"].difference
    assert abs(value) > 5 * error
    for name in FIGURES:
        value, error = sharp[name].difference
        assert abs(value) <= 4 * error + 0.003 * abs(sharp[name].physical[0]), name


def test_errors_of_differences_are_those_of_pairs():
    figures = compared(kind="sigmoid", smooth=0.05, span=(0.7, 0.7)).figures
    for name in ("share_used", "hit_efficiency"):
        pair = figures[name]
        assert pair.difference[1] < 0.5 * math.hypot(pair.smooth[1], pair.physical[1])


def test_errors_are_those_of_repetitions():
    """120 samples: the spread of their means is known to 6.5 %, the mean of the stated errors (15 degrees each) to
    2 %; together within four of these, 27 %."""
    made = volume(above=(0.95, 0.85), below=(0.15, 0.05), span=(0.7, 0.7), x0=filled("aluminium"), step=0.1)
    found = [
        compare_models(made, lambda k, key=key: muons(beam(320, seed=key), key=key), n_batches=1).figures["share_used"]
        for key in range(120)
    ]
    spread = torch.tensor([pair.physical[0] for pair in found]).std().item()
    stated = torch.tensor([pair.physical[1] for pair in found]).square().mean().sqrt().item()
    assert stated == pytest.approx(spread, rel=0.27)


def test_batches_and_groups_do_not_change_the_figures():
    def cut(number: int) -> MuonBatch:
        return muons(beam(N)[number * 500 : (number + 1) * 500], first=number * 500)

    made = volume(above=(0.95, 0.85), below=(0.15, 0.05), span=(0.8, 0.8), x0=filled("lead"))
    whole, parts = compare_models(made, sender(), n_batches=1), compare_models(made, cut, n_batches=4)
    for name in FIGURES:
        for model in ("smooth", "physical", "difference"):
            assert getattr(whole.figures[name], model) == pytest.approx(getattr(parts.figures[name], model), rel=1e-9)
    assert whole.n_muons == parts.n_muons == N


def test_curves_are_shares():
    curves = compared(span=(0.8, 0.8)).curves
    assert set(curves) == {"share_used", "hit_resolution_m", "angle_in_rad", "angle_out_rad"}
    for name, curve in curves.items():
        edges = curve["edges"]
        assert edges == sorted(edges)
        for model in ("smooth", "physical"):
            values = curve[model]["value"]
            assert all(0 <= value <= 1 for value in values)
            assert len(values) == len(edges) - (name == "share_used")
            if name != "share_used":
                assert values == sorted(values)
                assert values[-1] > 0.95


def test_plain_values_for_a_file():
    import json

    found = as_mapping(compared())
    row = found["figures"]["angle_in_rad"]
    assert set(row) == {"smooth", "smooth_se", "physical", "physical_se", "difference", "difference_se"}
    json.dumps(found, allow_nan=False)


def test_a_detector_that_nobody_hits_has_a_share_of_zero_and_no_errors():
    found = compared(span=(0.01, 0.01), beam_options={"low": 0.8, "high": 0.9, "max_theta": 0.01})
    assert found.figures["share_used"].physical == (0.0, 0.0)
    assert found.figures["hit_efficiency"].physical == (0.0, 0.0)
    for name in ("hit_resolution_m", "angle_in_rad", "angle_out_rad"):
        assert found.figures[name].physical is None
        assert found.figures[name].difference is None
    assert set(found.curves) == {"share_used"}


def test_modes_are_as_before():
    made = volume(x0=filled("lead"))
    made.eval()
    next(made.yield_panels()).train()
    before = [module.training for module in made.modules()]
    compare_models(made, sender(n=50), n_batches=1)
    assert [module.training for module in made.modules()] == before


def test_panels_at_one_height_have_no_angle():
    made = volume(above=(0.9, 0.9), below=(0.15, 0.05), span=(2.0, 2.0), x0=filled("aluminium"))
    figures = compare_models(made, sender(n=200), n_batches=1).figures
    assert figures["angle_in_rad"].physical is None
    assert figures["share_used"].physical[0] == 0


@pytest.mark.parametrize(("options", "words"), [({"n_batches": 0}, "n_batches"), ({"n_groups": 1}, "n_groups")])
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        compare_models(volume(x0=filled("lead")), sender(n=50), **({"n_batches": 1} | options))


def test_other_muons_the_second_time_are_refused():
    calls = iter(range(9))
    with pytest.raises(InputError, match="same muons"):
        compare_models(volume(x0=filled("lead")), lambda _: muons(beam(50, seed=next(calls))), n_batches=1)


def test_a_detector_without_physical_model_is_refused():
    with pytest.raises(NotSupportedError, match="realistic_validation"):
        compare_models(volume(x0=filled("lead"), realistic_validation=False), sender(n=50), n_batches=1)
