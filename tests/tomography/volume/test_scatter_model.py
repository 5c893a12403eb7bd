"""Scatter models: the documented narrowing of the older one, its reference step, grazing muons, choice by name."""

import math

import pytest
import torch

from diffdet.core.errors import GeometryError, InputError
from diffdet.core.materials import X0
from diffdet.kernels import angles
from diffdet.tomography.volume import scatter_model
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.scatter_model import (
    SCATTER_MODELS,
    PdgScatterModel,
    PdgStepScatterModel,
    get_scatter_model,
)
from scenes import filled, muons, pencil

F64 = {"dtype": torch.float64}
WIDE = torch.tensor([10.0, 10.0], **F64)


def block(material, step, model, thickness=0.1):
    return PassiveLayer(WIDE, 0.1, thickness, filled(material), step_sz=step, scatter_model=model)


def width(material, step, model, n=20_000):
    """RMS projected angle of vertical muons of 5 GeV behind 10 cm, both planes."""
    mu = muons(pencil(n, at=(5.0, 5.0)), z=0.1)
    block(material, step, model)(mu)
    return mu.theta_xy.square().mean().sqrt().item()


def highland(n, p=5.0):
    return 0.0136 / p * math.sqrt(n) * (1 + 0.038 * math.log(n))


@pytest.mark.parametrize(
    ("material", "step", "documented"),
    [
        ("lead", 0.1, 12.75e-3),
        ("lead", 0.01, 11.69e-3),
        ("lead", 0.005, 11.43e-3),
        ("lead", 0.002, 11.02e-3),
        ("beryllium", 0.1, 1.39e-3),
        ("beryllium", 0.01, 1.25e-3),
        ("air", 0.1, 34.1e-6),
        ("air", 0.01, 30.0e-6),
    ],
)
def test_the_formula_step_by_step_is_as_narrow_as_documented(material, step, documented):
    """40,000 angles: a width is known to 0.35 %; four of them. The documented numbers have errors of their own."""
    measured = width(material, step, "pdg-step")
    steps = round(0.1 / step)
    assert measured == pytest.approx(math.sqrt(steps) * highland(0.1 / steps / X0[material]), rel=0.014)
    assert measured == pytest.approx(documented, rel=0.025)


@pytest.mark.parametrize("material", ["lead", "beryllium", "air"])
@pytest.mark.parametrize("step", [0.1, 0.01, 0.002])
def test_the_default_model_has_highlands_width_whatever_the_step(material, step):
    """20,000 muons; the same normals whatever the step, so widths of different steps agree far better than 0.35 %."""
    # beta of a muon of 5 GeV is 0.99978
    assert width(material, step, "pdg") == pytest.approx(highland(0.1 / X0[material]), rel=0.014)
    assert width(material, step, "pdg") == pytest.approx(width(material, 0.1, "pdg"), rel=1e-6)


def test_a_single_step_of_the_older_model_has_the_reference_values(monkeypatch):
    """All normals 1, 1 cm of lead: displacement of the published package; deflection to the same side, unlike there."""
    mu = muons(pencil(1, at=(5.0, 5.0)), z=0.1)
    monkeypatch.setattr(mu, "draw_normal", lambda _, draws: torch.ones((*draws, 1), **F64))
    block("lead", 0.01, "pdg-step", thickness=0.01)(mu)
    assert mu.theta_xy[0].tolist() == pytest.approx([3.7105689e-3] * 2, rel=1e-4)
    assert (mu.xy[0] - 5.0).tolist() == pytest.approx([2.9264334e-5] * 2, rel=1e-4)


def test_both_models_move_muons_to_the_side_they_are_deflected_to():
    for model in ("pdg", "pdg-step"):
        mu = muons(pencil(5000, at=(5.0, 5.0)), z=0.1)
        block("lead", 0.01, model)(mu)
        pair = torch.stack([mu.x - 5, mu.theta_x])
        assert torch.corrcoef(pair)[0, 1].item() == pytest.approx(math.sqrt(3) / 2, abs=0.02)


def test_slow_muons_scatter_by_beta_p_in_the_default_model_and_by_p_in_the_older():
    ratio = {}
    for model in ("pdg", "pdg-step"):
        mu = muons(pencil(20_000, momentum=0.2, at=(5.0, 5.0)), z=0.1)
        block("beryllium", 0.1, model)(mu)
        ratio[model] = mu.theta_xy.square().mean().sqrt().item() / highland(0.1 / X0["beryllium"], 0.2)
    beta = 0.2 / math.hypot(0.2, 0.10566)
    assert ratio["pdg-step"] == pytest.approx(1, rel=0.02)
    assert ratio["pdg"] == pytest.approx(1 / beta, rel=0.02)


def test_muons_that_leave_the_footprint_and_come_back_find_the_material_again():
    def stripes(*, z, lw, size):
        cells = torch.full((10, 10), math.inf)
        cells[3:6] = 0.005612
        return cells

    direction = angles.direction_from_polar(torch.tensor(0.9, **F64), torch.tensor(0.0, **F64))
    for model in ("pdg", "pdg-step"):
        layer = PassiveLayer(torch.tensor([1.0, 1.0], **F64), 0.5, 0.1, stripes, step_sz=0.001, scatter_model=model)
        mu = muons(pencil(50, theta=0.9, at=(0.25, 0.5)), z=0.5)
        layer(mu)
        # 0.05 m of vacuum, then lead to the bottom: x advances by tan(0.9) 0.1 = 0.126 m
        expected = (0.1 * math.tan(0.9) - 0.05) / direction[0].item() / 0.005612
        assert mu.n_rad.median().item() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("model", ["pdg", "pdg-step"])
def test_no_muons(model):
    mu = muons(pencil(0))
    block("lead", 0.01, model)(mu)
    assert len(mu) == 0


def test_the_older_model_refuses_to_step_for_ever(monkeypatch):
    monkeypatch.setattr(scatter_model, "_MAX_STEPS", 100)
    mu = muons(pencil(1, theta=math.pi / 2 - 1e-6, at=(5.0, 5.0)), z=0.1)
    layer = PassiveLayer(WIDE, 0.1, 0.1, lambda **_: torch.full((100, 100), math.inf), 1e-4, "pdg-step")
    with pytest.raises(GeometryError, match="almost horizontally"):
        layer(mu)


def test_models_by_name():
    assert isinstance(get_scatter_model("pdg"), PdgScatterModel)
    assert isinstance(get_scatter_model("pdg-step"), PdgStepScatterModel)
    model = PdgStepScatterModel()
    assert get_scatter_model(model) is model
    assert set(SCATTER_MODELS) >= {"pdg", "pdg-step"}
    with pytest.raises(InputError, match="scatter_model"):
        get_scatter_model("geant")
