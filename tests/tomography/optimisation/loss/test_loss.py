"""Losses: their values, their gradients, and the part that the cost plays."""

import copy
import io
import logging
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, NotSupportedError, ShapeError
from diffdet.tomography.optimisation.loss.loss import (
    AbsDetectorLoss,
    AbsMaterialClassLoss,
    VolumeClassLoss,
    VolumeIntClassLoss,
    VolumeMSELoss,
    VoxelClassLoss,
    VoxelX0Loss,
)
from diffdet.tomography.optimisation.loss.sub_losses import integer_class_loss
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

X02ID = {0.3528: 0, 0.005612: 1, 303.9: 2}


def make_volume(target=None, x0=((0.3528, 0.005612), (303.9, 0.3528)), dtype=torch.float64):
    """Two layers of 2 x 2 voxels under one panel of 4 m^2."""
    lw = torch.tensor([2.0, 2.0], dtype=dtype)
    panel = DetectorPanel(res=1e3, eff=0.9, init_xyz=(1.0, 1.0, 2.5), init_xy_span=(2.0, 2.0))
    layers = [PanelDetectorLayer("above", lw=lw, z=3.0, size=1.0, panels=[panel])]
    layers += [PassiveLayer(lw, z, 1.0) for z in (2.0, 1.0)]
    volume = Volume(nn.ModuleList(layers))
    volume.load_rad_length(lambda *, z, lw, size: torch.tensor(x0, dtype=dtype) * (1 if float(z) < 1.5 else 2), target)
    return volume


class Constant(AbsDetectorLoss):
    """A loss whose error is the prediction."""

    def _get_inference_loss(self, pred, volume):
        return pred


# ------------------------------------------------------------------------------------------------------------ cost
def test_without_a_budget_the_loss_is_the_error():
    loss = Constant(target_budget=None)
    pred = torch.tensor(0.7, requires_grad=True)
    total = loss(pred, make_volume())
    assert total.shape == ()
    assert total.item() == pytest.approx(0.7)
    assert loss.sub_losses["cost"].item() == 0
    assert torch.autograd.grad(total, pred)[0].item() == 1


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("budget", [2.0, 4.0, 8.0])
def test_cost_is_penalty_times_coefficient(budget, steep):
    # The panel costs 4; reference values of the penalty at cost/budget = 2, 1, 0.5 with smoothing 10.
    penalty = {2.0: 6.0 if steep else 2.999909, 4.0: 1.0, 8.0: 0.013386}[budget]
    loss = Constant(target_budget=budget, cost_coef=0.5, steep_budget=steep)
    total = loss(torch.tensor(0.7), make_volume())
    assert total.item() == pytest.approx(0.7 + 0.5 * penalty, abs=1e-6)
    assert loss.sub_losses["error"].item() == pytest.approx(0.7)
    assert loss.sub_losses["cost"].item() == pytest.approx(0.5 * penalty, abs=1e-6)
    assert not any(part.requires_grad for part in loss.sub_losses.values())


def test_cost_has_a_gradient_by_the_size_of_the_panel():
    volume = make_volume()
    panel = next(volume.yield_panels())
    total = Constant(target_budget=4.0, cost_coef=1.0)(torch.tensor(0.0), volume)
    # d penalty / d cost = 10 / (2 * 4) at the budget; cost = w_x w_y.
    gradient = torch.autograd.grad(total, panel.xy_span)[0]
    assert gradient.tolist() == pytest.approx([1.25 * 2.0, 1.25 * 2.0])


def test_coefficient_is_the_error_of_the_first_evaluation(caplog):
    loss = Constant(target_budget=4.0)
    assert loss.cost_coef is None
    with caplog.at_level(logging.INFO, logger="diffdet"):
        first = loss(torch.tensor(0.7, requires_grad=True), make_volume())
        second = loss(torch.tensor(0.1), make_volume())
    assert loss.cost_coef.item() == pytest.approx(0.7)
    assert not loss.cost_coef.requires_grad
    assert first.item() == pytest.approx(1.4)
    assert second.item() == pytest.approx(0.8)
    assert [r.getMessage() for r in caplog.records] == [
        "cost coefficient set to the error of the first evaluation, 0.7"
    ]


def test_nothing_is_printed(capsys):
    Constant(target_budget=4.0, debug=True)(torch.tensor(0.7), make_volume())
    assert capsys.readouterr() == ("", "")


def test_debug_logs_every_evaluation(caplog):
    loss = Constant(target_budget=4.0, cost_coef=1.0, debug=True)
    with caplog.at_level(logging.INFO, logger="diffdet"):
        loss(torch.tensor(0.7), make_volume())
    assert "cost 4 of 4, penalty 1, coefficient 1, error 0.7" in caplog.text


def test_an_error_that_is_no_number_does_not_become_the_coefficient():
    loss = Constant(target_budget=4.0)
    assert loss(torch.tensor(math.nan), make_volume()).isnan()
    assert loss.cost_coef is None
    loss(torch.tensor(0.3), make_volume())
    assert loss.cost_coef.item() == pytest.approx(0.3)


def test_coefficient_survives_saving_and_copying():
    loss = Constant(target_budget=4.0)
    empty = copy.deepcopy(loss.state_dict())
    loss(torch.tensor(0.7), make_volume())
    stored = io.BytesIO()
    torch.save(loss.state_dict(), stored)
    stored.seek(0)
    other = Constant(target_budget=4.0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert other.cost_coef.item() == pytest.approx(0.7)
    assert copy.deepcopy(loss).cost_coef.item() == pytest.approx(0.7)
    other.load_state_dict(empty)
    assert other.cost_coef is None
    nested = nn.ModuleDict({"loss": Constant(target_budget=4.0)})
    nested.load_state_dict(nn.ModuleDict({"loss": loss}).state_dict())
    assert nested["loss"].cost_coef.item() == pytest.approx(0.7)


def test_coefficient_can_be_set_to_a_number_or_tensor():
    loss = Constant(target_budget=4.0)
    for value in (2, 2.0, torch.tensor([2.0], requires_grad=True)):
        loss.cost_coef = value
        assert loss.cost_coef.shape == ()
        assert loss.cost_coef.item() == 2
    with pytest.raises(ShapeError, match="`cost_coef`"):
        loss.cost_coef = torch.ones(2)
    with pytest.raises(InputError, match="`cost_coef` must be finite"):
        loss.cost_coef = math.nan


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"target_budget": 0.0}, "target_budget"), ({"target_budget": 1.0, "budget_smoothing": -1}, "budget_smoothing")],
)
def test_nonsense_is_refused(arguments, name):
    with pytest.raises(InputError, match=f"`{name}` must be greater than 0"):
        Constant(**arguments)


def test_an_error_of_several_numbers_is_refused():
    with pytest.raises(ShapeError, match=r"Constant\._get_inference_loss"):
        Constant(target_budget=None)(torch.ones(2), make_volume())


@pytest.mark.parametrize("abstract", [AbsDetectorLoss, AbsMaterialClassLoss])
def test_abstract_losses_cannot_be_made(abstract):
    with pytest.raises(TypeError, match="abstract"):
        abstract(target_budget=None, **({"x02id": X02ID} if abstract is AbsMaterialClassLoss else {}))


# ----------------------------------------------------------------------------------------------------------- errors
def test_voxel_x0_loss_is_the_mean_squared_error():
    volume = make_volume()
    cube = volume.get_rad_cube()
    # Index 0 is the lowest layer, whose X0 are the plain ones.
    assert cube[0, 0, 1].item() == pytest.approx(0.005612)
    pred = (cube + torch.arange(8).reshape(2, 2, 2)).requires_grad_()
    loss = VoxelX0Loss(target_budget=None)
    assert loss(pred, volume).item() == pytest.approx(sum(k**2 for k in range(8)) / 8)
    assert gradcheck(lambda p: loss(p, volume), (pred,))
    with pytest.raises(ShapeError, match=r"`pred` must have the shape of the voxels, \(2, 2, 2\)"):
        loss(pred[0], volume)


def test_voxel_class_loss_is_the_negative_log_likelihood():
    volume = make_volume()
    pred = torch.log_softmax(
        torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(18)).double(), 1
    ).requires_grad_()
    # lowest layer: Be, Pb, air, Be; the upper layer has twice the X0, and the nearest of 2 x 0.005612 is still lead
    classes = [0, 1, 2, 0, 0, 1, 2, 0]
    wanted = -sum(pred[0, c, i].item() for i, c in enumerate(classes)) / 8
    loss = VoxelClassLoss(x02id=X02ID, target_budget=None)
    assert loss(pred, volume).item() == pytest.approx(wanted)
    assert gradcheck(lambda p: loss(p, volume), (pred,))
    for wrong in (pred[0], pred[:, :, :7]):
        with pytest.raises(ShapeError, match="`pred`"):
            loss(wrong, volume)
    with pytest.raises(ShapeError, match=r"classes \[0, 1, 2\]"):
        loss(pred[:, :2], volume)


def test_voxel_class_loss_does_not_change_the_volume():
    volume = make_volume()
    before = volume.get_rad_cube().clone()
    VoxelClassLoss(x02id={0.3528: 1, 0.005612: 0, 1.0: 2}, target_budget=None)(torch.zeros(1, 3, 8), volume)
    assert torch.equal(volume.get_rad_cube(), before)


def test_volume_class_loss_with_several_classes():
    volume = make_volume(torch.tensor([0.0056]))
    pred = torch.log_softmax(torch.tensor([[0.1, 1.0, -0.3]], dtype=torch.float64), 1).requires_grad_()
    loss = VolumeClassLoss(x02id=X02ID, target_budget=None)
    assert loss(pred, volume).item() == pytest.approx(-pred[0, 1].item())
    assert gradcheck(lambda p: loss(p, volume), (pred,))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
@pytest.mark.parametrize(("target", "truth"), [(0.3528, 0), (0.005612, 1)])
def test_volume_class_loss_with_one_class_is_binary(shape, target, truth):
    volume = make_volume(torch.tensor([target]))
    pred = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    loss = VolumeClassLoss(x02id=X02ID, target_budget=None)
    assert loss(pred, volume).item() == pytest.approx(-math.log(0.8 if truth else 0.2))
    assert gradcheck(lambda p: loss(p, volume), (pred,))


def test_volume_mse_loss():
    volume = make_volume(torch.tensor([1.0]))
    loss = VolumeMSELoss(target_budget=None)
    for shape in ((), (1,), (1, 1)):
        pred = torch.full(shape, 1.5, dtype=torch.float64, requires_grad=True)
        assert loss(pred, volume).item() == pytest.approx(0.25)
        assert gradcheck(lambda p: loss(p, volume), (pred,))
    with pytest.raises(ShapeError, match="does not fit a target"):
        loss(torch.ones(2), volume)


def test_volume_int_class_loss_maps_the_target():
    volume = make_volume(torch.tensor([0.55]))
    pred = torch.softmax(torch.tensor([1.0, 3, 10, 5, 5, 3, 1], dtype=torch.float64), 0).requires_grad_()
    seen = []

    def targ2int(target, about):
        seen.append((target.item(), about))
        return torch.floor((target - 0.2) / 0.1)

    loss = VolumeIntClassLoss(targ2int=targ2int, pred_int_start=0, use_mse=False, target_budget=None)
    assert loss(pred, volume).item() == pytest.approx(0.0829706, abs=1e-6)
    assert seen == [(pytest.approx(0.55), volume)]
    assert gradcheck(lambda p: loss(p, volume), (pred,))


@pytest.mark.parametrize("kind", [VolumeMSELoss, VolumeClassLoss, VolumeIntClassLoss])
def test_a_missing_target_is_said(kind):
    more = {
        VolumeMSELoss: {},
        VolumeClassLoss: {"x02id": X02ID},
        VolumeIntClassLoss: {"targ2int": lambda t, v: t, "pred_int_start": 0, "use_mse": True},
    }[kind]
    with pytest.raises(InputError, match="`volume` must have a target"):
        kind(target_budget=None, **more)(torch.ones(1, 1), make_volume())


def test_a_missing_layout_is_said():
    volume = Volume([PassiveLayer(torch.ones(2), 1.0, 1.0)])
    with pytest.raises(NotSupportedError, match="load_rad_length"):
        VoxelX0Loss(target_budget=None)(torch.ones(1, 1, 1), volume)


# ----------------------------------------------------------------------------------------------- integer class loss
CLOSE = torch.softmax(torch.tensor([1.0, 3, 10, 5, 5, 3, 1], dtype=torch.float64), 0)
FAR = torch.softmax(torch.tensor([10.0, 3, 1, 5, 5, 3, 1], dtype=torch.float64), 0)


@pytest.mark.parametrize(
    ("probs", "start", "squared", "wanted"),
    [
        (CLOSE, 0, False, 0.0829706),
        (CLOSE, 0, True, 0.0357392),
        (CLOSE, 1, False, 0.0018635),
        (CLOSE, 1, True, 0.0012738),
        (FAR, 0, False, 0.2470656),
        (FAR, 0, True, 0.3170450),
        (FAR, 1, False, 0.1533358),
        (FAR, 1, True, 0.1137961),
    ],
)
def test_integer_class_loss_has_the_reference_values(probs, start, squared, wanted):
    assert integer_class_loss(probs, torch.tensor(3), start, squared).item() == pytest.approx(wanted, abs=2e-7)


def test_integer_class_loss_equals_the_slow_twin_and_reduces():
    generator = torch.Generator().manual_seed(19)
    probs = torch.rand(4, 2, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(7, (4, 2), generator=generator)
    weight = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    single = integer_class_loss(probs, target, 1, True, weight, "none")
    assert single.shape == (4, 2)
    for i in range(4):
        for j in range(2):
            distances = [(target[i, j].item() - k) ** 2 for k in range(1, 6)]
            wanted = sum(d * p for d, p in zip(distances, probs[i, j].tolist(), strict=True)) / sum(distances)
            assert single[i, j].item() == pytest.approx(wanted * weight[i, j].item())
    torch.testing.assert_close(integer_class_loss(probs, target, 1, True, weight), single.mean())
    torch.testing.assert_close(integer_class_loss(probs, target, 1, True, weight, "sum"), single.sum())


def test_certainty_about_the_target_costs_nothing():
    assert integer_class_loss(torch.tensor([0.0, 1.0, 0.0]), torch.tensor(1), 0, False).item() == 0
    alone = torch.ones(1, requires_grad=True)
    loss = integer_class_loss(alone, torch.tensor(4), 4, True)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, alone)[0].item() == 0


def test_integer_class_loss_gradients_and_refusals():
    probs = torch.rand(3, 4, generator=torch.Generator().manual_seed(20), dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 2, 5])
    for squared in (True, False):
        assert gradcheck(lambda p, s=squared: integer_class_loss(p, target, 0, s), (probs,))
    with pytest.raises(InputError, match="`reduction` must be one of"):
        integer_class_loss(probs, target, 0, True, reduction="avg")
    with pytest.raises(ShapeError, match="`target_int`"):
        integer_class_loss(probs, target[:2], 0, True)
    with pytest.raises(ShapeError, match="`weight`"):
        integer_class_loss(probs, target, 0, True, torch.ones(2))
