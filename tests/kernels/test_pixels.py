"""Log-charge scaling in both roundings, rows added and cut, lit pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffdet.kernels import pixels

CHARGES = torch.arange(256)


def test_anchors_of_the_scaling():
    x = pixels.activation_from_charge(torch.tensor([0.0, 7.0, 255.0], dtype=torch.float64))
    assert x.tolist() == pytest.approx([-1, -0.25, 1], abs=1e-15)
    assert pixels.activation_of_threshold(7) == -0.25
    # 256^0.37 - 1 = 6.78: what published ieagan takes for its threshold is a little below 7
    assert pixels.charge_from_activation(torch.tensor([-1.0, -0.26, 1.0])).tolist() == [0, 6, 255]
    assert 256 ** ((1 - 0.26) / 2) - 1 == pytest.approx(6.78, abs=0.005)


def test_rounding_recovers_every_charge_and_cutting_loses_97_in_single_precision():
    x = pixels.activation_from_charge(CHARGES.to(torch.float32))
    nearest = pixels.charge_from_activation(x, rounding="nearest").long()
    cut = pixels.charge_from_activation(x, rounding="basf2").long()
    assert torch.equal(nearest, CHARGES)
    lost = CHARGES[cut != CHARGES]
    assert len(lost) == 97
    assert lost[:3].tolist() == [2, 4, 9]
    assert torch.equal(cut[lost], lost - 1)


def test_charge_against_the_formula_one_by_one(dtype):
    x = torch.linspace(-1.2, 1.2, 241, dtype=dtype)
    for value, charge in zip(x.tolist(), pixels.charge_from_activation(x).tolist(), strict=True):
        exact = 256 ** min(max((value + 1) / 2, 0), 1) - 1
        assert math.floor(exact - 1e-4) <= charge <= math.floor(exact + 1e-4)


def test_threshold_and_cut_empty_what_is_too_faint():
    x = pixels.activation_from_charge(CHARGES.double())
    kept = pixels.charge_from_activation(x, rounding="nearest", threshold=7)
    assert torch.equal(kept.long(), torch.where(CHARGES < 7, 0, CHARGES))
    ramp = torch.tensor([-0.2601, -0.26, -0.2599])
    assert pixels.charge_from_activation(ramp, cut=-0.26).tolist() == [0, 0, 6]


def test_unknown_rounding_is_refused():
    with pytest.raises(ValueError, match="`rounding`"):
        pixels.charge_from_activation(torch.zeros(1), rounding="up")


def test_rows_3_to_252_are_kept():
    image = torch.arange(256)[:, None].expand(2, 256, 5)
    cropped = pixels.crop_rows(image)
    assert cropped.shape == (2, 250, 5)
    assert cropped[0, 0, 0] == 3
    assert cropped[0, -1, 0] == 252
    padded = pixels.pad_rows(cropped, value=-1)
    assert torch.equal(pixels.crop_rows(padded), cropped)
    assert padded.shape == (2, 256, 5)
    assert torch.equal(padded[:, [0, 1, 2, 253, 254, 255]], torch.full((2, 6, 5), -1))


@given(st.lists(st.integers(0, 255), max_size=64))
def test_lit_pixels_are_those_of_nonzero_and_paint_brings_them_back(values):
    image = torch.tensor(values, dtype=torch.uint8)
    position, charge = pixels.lit_pixels(image)
    assert torch.equal(position, image.nonzero().squeeze(1))
    assert torch.equal(charge, image[position])
    assert torch.equal(pixels.paint_pixels(position, charge, len(values)), image)


def test_scaling_has_its_gradient():
    charge = torch.tensor([0.0, 7.0, 100.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pixels.activation_from_charge, (charge,))
