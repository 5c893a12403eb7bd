"""The gradient of a whole step - hit, track, closest approach, image or fill level, loss - against finite differences.

Random numbers are the same on both sides of a difference (they are keyed by muon), so the loss is a smooth function of
the detector and central differences in float64 are an oracle of its gradient to five digits.
"""

import copy
import itertools

import pytest
import torch

from diffdet.kernels import fill_level
from diffdet.tomography.benchmarks.ladle_furnace.inference import PocaZLadleFurnaceFillLevelInferrer
from diffdet.tomography.inference.volume import DenseBlockClassifierFromX0s, PanelX0Inferrer
from scenes import beam, filled, lead_in_beryllium, scattered, volume

STEP = 1e-6
FAMILIES = ("xy", "z", "xy_span", "budget_weights")


def detector(kind, budget, **options):
    """Three panels above and four below, none like another, not over the middle."""
    given = {"above": (0.99, 0.93, 0.85), "shift": 0.04, "voxel": 0.2, "x0": lead_in_beryllium, "smooth": 0.3}
    return volume(kind, budget=budget, **{**given, **options})


def voxel_loss(made, given):
    """Mean squared error of X0, cm^2."""
    inferrer = PanelX0Inferrer(made)
    inferrer.add_scatters(scattered(made, given))
    return 1e4 * (inferrer.get_prediction() - made.get_rad_cube()).square().mean()


def fill_height(made, given):
    """Height of the closest approaches, m."""
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made, smooth=0.5)
    inferrer.add_scatters(scattered(made, given))
    return inferrer.get_prediction().sum()


def block_statistic(made, given):
    """Contrast of the ten densest voxels, with a soft cut."""
    inferrer = DenseBlockClassifierFromX0s(10, PanelX0Inferrer, made, use_avgpool=False, cut_coef=20.0)
    inferrer.add_scatters(scattered(made, given))
    return inferrer.get_prediction().sum()


def differences(made, loss):
    """Central differences of a loss by every parameter, in the order of ``named_parameters``."""
    moved = copy.deepcopy(made)
    out = {}
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            flat, found = parameter.view(-1), []
            for k in range(flat.numel()):
                kept = flat[k].item()
                values = []
                for sign in (1, -1):
                    flat[k] = kept + sign * STEP
                    values.append(loss(moved).item())
                flat[k] = kept
                found.append((values[0] - values[1]) / (2 * STEP))
            out[name] = torch.tensor(found, dtype=torch.float64)
    return out


def compare(made, loss, tolerance=1e-5):
    """Every family of parameters: gradients and differences agree relative to the family's largest."""
    loss(made).backward()
    expected = differences(made, loss)
    seen = set()
    for family in FAMILIES:
        names = [name for name in expected if name.rpartition(".")[2] == family]
        if not names:
            continue
        seen.add(family)
        oracle = torch.cat([expected[name] for name in names])
        ours = torch.cat([made.get_parameter(name).grad.flatten() for name in names])
        assert oracle.abs().max() > 0
        assert (ours - oracle).abs().max() < tolerance * oracle.abs().max(), family
        cosine = torch.cosine_similarity(ours, oracle, dim=0).item()
        assert cosine > 1 - 1e-8, family
    return seen


@pytest.mark.parametrize("budget", [None, 9.0])
@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
def test_voxel_loss(kind, budget):
    """The published package's gradients have cosines of 0.08 (xy), 0.89 (z) and 0.23 (span) with such differences."""
    given = beam(200, seed=3, low=0.1, high=0.9)
    made = detector(kind, budget)
    assert compare(made, lambda v: voxel_loss(v, given)) == {"xy", "z", "xy_span"} | (
        {"budget_weights"} if budget else set()
    )


def test_voxel_loss_with_panels_of_several_kinds_in_a_layer():
    given = beam(150, seed=4, low=0.1, high=0.9)
    made = detector(["sigmoid", "gaussian", "sigmoid", "gaussian"], 9.0)
    compare(made, lambda v: voxel_loss(v, given))


@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
def test_fill_height(kind, monkeypatch):
    """Limits at which uncertainties and weights are clipped carry no gradient, as documented: here they are held."""
    given = beam(200, seed=5, low=0.1, high=0.9)
    made = detector(kind, 9.0)
    limits = []
    real = fill_level.quantile
    monkeypatch.setattr(fill_level, "quantile", lambda *a: limits.append(real(*a)) or limits[-1])
    fill_height(made, given)
    # a little aside, so that no muon lies on a limit itself
    held = [limit.item() * (1 + 1e-4) for limit in limits]
    assert len(held) == 3
    calls = itertools.cycle(torch.tensor(held, dtype=torch.float64))
    monkeypatch.setattr(fill_level, "quantile", lambda *_: next(calls))
    compare(made, lambda v: fill_height(v, given))


def test_dense_block_statistic():
    given = beam(200, seed=6, low=0.1, high=0.9)
    made = detector("gaussian", None)
    compare(made, lambda v: block_statistic(v, given), tolerance=1e-4)


def test_hits_that_bear_no_weight_do_not_break_the_gradient():
    """Small panels, so that many muons have hits that do not count, and some are dropped."""
    given = beam(300, seed=7, low=-0.2, high=1.2)
    made = detector("sigmoid", None, span=(0.3, 0.3), smooth=0.03)
    compare(made, lambda v: voxel_loss(v, given).log())


def test_float32_gradients_point_where_float64_ones_do():
    """The same muons and noise in both types are not to be had, so the mean over 20 sets of muons is compared."""
    directions = {}
    for dtype in (torch.float32, torch.float64):
        made = detector("sigmoid", None, dtype=dtype)
        for seed in range(20):
            given = beam(500, seed=seed, low=0.1, high=0.9, dtype=dtype)
            voxel_loss(made, given).log().backward()
        directions[dtype] = torch.cat([p.grad.flatten().double() for p in made.parameters()])
    pair = list(directions.values())
    assert torch.cosine_similarity(*pair, dim=0).item() > 0.9


def test_moving_the_whole_detector_with_the_muons_changes_nothing():
    """In a homogeneous block, all panels moved by dx see what a beam moved by -dx shows them."""
    given = beam(100, seed=8, low=0.3, high=0.7)
    made = detector("gaussian", None, x0=filled("lead"))

    def mean_theta(v, muons):
        sb = scattered(v, muons)
        return (sb.theta_in_unc.log() + sb.theta_out_unc.log()).mean()

    mean_theta(made, given).backward()
    by_detector = sum(p.xy.grad[0].item() for p in made.yield_panels())
    there, here = given.clone(), given.clone()
    there[:, 0] += STEP
    here[:, 0] -= STEP
    by_beam = (mean_theta(made, there) - mean_theta(made, here)).item() / (2 * STEP)
    assert by_detector == pytest.approx(-by_beam, rel=1e-5)
