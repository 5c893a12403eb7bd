"""Helpers: Jacobians, class ids, mixtures."""

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.tomography.utils import class_to_x0preds, jacobian, x0_from_mixture, x0targs_to_classtargs

ID2X0 = {0: 0.3528, 1: 0.005612, 7: 303.9}
X02ID = {x0: identity for identity, x0 in ID2X0.items()}


@pytest.mark.parametrize("y_shape", [(), (1,), (4,), (2, 3)])
@pytest.mark.parametrize("x_shape", [(), (5,), (3, 2)])
def test_jacobian_has_both_shapes_and_equals_torch(y_shape, x_shape):
    size = int(np.prod(x_shape)), int(np.prod(y_shape))
    matrix = torch.randn(size, generator=torch.Generator().manual_seed(17), dtype=torch.float64)

    def function(x):
        return (x.reshape(-1).sin() @ matrix).square().reshape(y_shape)

    x = torch.linspace(0.1, 1, size[0], dtype=torch.float64).reshape(x_shape).requires_grad_()
    found = jacobian(function(x), x)
    assert found.shape == (*y_shape, *x_shape)
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(function, x))


def test_jacobian_can_be_differentiated_on_request():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    first = jacobian(x**3, x, create_graph=True)
    second = jacobian(first, x)
    assert second.shape == (2, 2, 2)
    assert second[1, 1, 1].item() == pytest.approx(12)
    assert second.abs().sum().item() == pytest.approx(18)


def test_the_graph_is_kept():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.square()
    assert torch.equal(jacobian(y, x), jacobian(y, x))


def test_what_does_not_depend_has_derivative_zero_or_is_refused():
    x = torch.ones(3, requires_grad=True)
    for unrelated in (torch.ones(2), torch.ones(2, requires_grad=True) * 2):
        assert torch.equal(jacobian(unrelated, x), torch.zeros(2, 3))
        with pytest.raises(InputError, match="`y` must be computed from `x`"):
            jacobian(unrelated, x, allow_unused=False)
    with pytest.raises(InputError, match="`x` must require gradients"):
        jacobian(torch.ones(2), torch.ones(3))


def test_jacobian_of_nothing_is_empty():
    x = torch.ones(3, requires_grad=True)
    assert jacobian(x[:0], x).shape == (0, 3)
    empty = torch.ones(0, requires_grad=True)
    assert jacobian(empty.sum(), empty).shape == (0,)


def test_classes_become_radiation_lengths():
    classes = np.array([[0, 7], [1, 1]])
    before = classes.copy()
    found = class_to_x0preds(classes, ID2X0)
    assert found.tolist() == np.array([[0.3528, 303.9], [0.005612, 0.005612]], dtype=found.dtype).tolist()
    assert found.dtype == torch.empty(0).numpy().dtype
    assert (classes == before).all()
    with pytest.raises(InputError, match=r"`array` must hold the class ids \[0, 1, 7\]; got \[3\]"):
        class_to_x0preds(np.array([0, 3]), ID2X0)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_radiation_lengths_become_the_nearest_classes(kind):
    x0s = kind([[0.3528, 300.0], [0.005612, 0.17]])
    before = x0s + 0
    found = x0targs_to_classtargs(x0s, X02ID)
    assert isinstance(found, np.ndarray)
    assert np.issubdtype(found.dtype, np.integer)
    # 0.17 lies nearer to 0.005612 than to 0.3528
    assert found.tolist() == [[0, 7], [1, 1]]
    assert (x0s == before).all()


def test_an_id_that_equals_a_radiation_length_is_not_mapped_twice():
    # The published package replaces values one after the other in place: 0.9 -> 1, which it then takes for X0 = 1 and
    # maps to 2.
    assert x0targs_to_classtargs(np.array([0.9, 1.0]), {0.9: 1, 1.0: 2}).tolist() == [1, 2]


def test_round_trip_of_classes():
    classes = np.array([0, 1, 7, 7, 0])
    assert (x0targs_to_classtargs(class_to_x0preds(classes, ID2X0), X02ID) == classes).all()


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="`x02id`"):
        x0targs_to_classtargs(np.ones(2), {})
    with pytest.raises(InputError, match="1 that are NaN"):
        x0targs_to_classtargs(np.array([np.nan, 1.0]), X02ID)


def test_mixtures_have_the_reference_values():
    water_quartz = x0_from_mixture([0.3608, 0.1229], [1000, 2200], volume_fracs=[0.5, 0.5])
    assert water_quartz == pytest.approx({"X0": 0.18334637, "density": 1600}, rel=1e-7)
    parts = np.array([43.25 / 1.33, 42.7 / 3.52]), np.array([1.33, 3.52])
    assert x0_from_mixture(*parts, weight_fracs=[1, 3]) == pytest.approx(
        {"X0": 17.178942, "density": 2.493529}, rel=1e-6
    )


def test_volume_fractions_are_weights_over_density():
    x0s, densities, volumes = [0.1, 0.2, 0.3], [1000, 2000, 500], [1, 2, 3]
    by_weight = x0_from_mixture(x0s, densities, weight_fracs=[d * v for d, v in zip(densities, volumes, strict=True)])
    assert x0_from_mixture(x0s, densities, volume_fracs=volumes) == pytest.approx(by_weight)
    assert x0_from_mixture([0.1, 0.1], [7, 7], [0.2, 0.9]) == pytest.approx({"X0": 0.1, "density": 7})


@pytest.mark.parametrize("fractions", [{}, {"weight_fracs": [1], "volume_fracs": [1]}])
def test_exactly_one_kind_of_fraction_is_asked_for(fractions):
    with pytest.raises(InputError, match="exactly one of `weight_fracs` and `volume_fracs`"):
        x0_from_mixture([0.1], [1000], **fractions)
