"""Elementary functions: equal to the textbook away from the edge, finite with a stated gradient at it."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from diffdet.kernels.safe_math import logistic, safe_atan2, safe_divide, safe_log, safe_norm, safe_sqrt, sum_rows

EDGES = {
    "sqrt": (safe_sqrt, (0.0,), 0.0),
    "sqrt_negative": (safe_sqrt, (-1e-12,), 0.0),
    "log": (lambda x: safe_log(x, 1e-3), (0.0,), math.log(1e-3)),
    "log_negative": (lambda x: safe_log(x, 1e-3), (-1.0,), math.log(1e-3)),
    "divide": (safe_divide, (1.0, 0.0), 0.0),
    "divide_0_by_0": (safe_divide, (0.0, 0.0), 0.0),
    "atan2": (safe_atan2, (0.0, 0.0), 0.0),
}


@pytest.mark.parametrize("case", EDGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_is_stated_and_gradient_is_zero_at_the_edge(case, dtype):
    function, inputs, value = EDGES[case]
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in inputs]
    result = function(*leaves)
    assert result.dtype == dtype
    assert result.item() == pytest.approx(value)
    gradients = torch.autograd.grad(result, leaves)
    assert [g.item() for g in gradients] == [0.0] * len(leaves)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_equals_the_textbook_away_from_the_edge(shape):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    torch.testing.assert_close(safe_sqrt(x), x.sqrt(), rtol=0, atol=0)
    torch.testing.assert_close(safe_log(x), x.log(), rtol=0, atol=0)
    torch.testing.assert_close(safe_divide(x, y), x / y, rtol=0, atol=0)
    # torch's vectorised and scalar paths of atan2 differ in the last bit
    torch.testing.assert_close(safe_atan2(-x, -y), torch.atan2(-x, -y), rtol=1e-15, atol=0)
    if shape:
        torch.testing.assert_close(safe_norm(x, -1), torch.linalg.vector_norm(x, dim=-1))


def test_gradients_away_from_the_edge():
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.rand(4, generator=generator, dtype=torch.float64).add(0.1).requires_grad_() for _ in range(2))
    for function, inputs in [(safe_sqrt, (x,)), (safe_log, (x,)), (safe_divide, (x, y)), (safe_atan2, (x, y))]:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_norm_of_the_null_vector_has_zero_first_and_second_derivative():
    x = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(safe_norm(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(first, torch.zeros_like(x))
    assert torch.equal(second, torch.zeros_like(x))


def test_norm_keeps_its_axis_on_request():
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    assert safe_norm(x).tolist() == [5.0, 0.0]
    assert safe_norm(x, dim=0, keepdim=True).shape == (1, 2)
    assert safe_norm(x, dim=1).tolist() == [3.0, 4.0]


def test_divide_takes_the_fallback_and_broadcasts():
    result = safe_divide(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 2.0]), fallback=math.inf)
    assert result.tolist() == [[math.inf, 0.5], [math.inf, 1.0]]


def test_not_a_number_is_not_hidden():
    nan = torch.tensor(math.nan)
    one = torch.tensor(1.0)
    for result in (safe_sqrt(nan), safe_log(nan), safe_divide(one, nan), safe_divide(nan, one), safe_atan2(nan, one)):
        assert torch.isnan(result)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arc_tangent_in_all_octants_and_on_the_axes(dtype):
    turns = torch.arange(-15, 17, dtype=torch.float64) * (math.pi / 16)
    y, x = (2.5 * turns.sin()).to(dtype), (2.5 * turns.cos()).to(dtype)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(safe_atan2(y, x), turns.to(dtype), rtol=0, atol=tolerance)
    axes = torch.tensor([[0.0, 1.0, 0.0, -1.0], [1.0, 0.0, -1.0, 0.0]], dtype=dtype).requires_grad_()
    angle = safe_atan2(*axes)
    assert angle.tolist() == pytest.approx([0.0, math.pi / 2, math.pi, -math.pi / 2], abs=tolerance)
    (gradient,) = torch.autograd.grad(angle.sum(), axes)
    # (x, -y) / r^2
    assert gradient.tolist() == [[1.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_in_both_tails_and_beyond_them(dtype):
    x = torch.linspace(-60, 60, 241, dtype=dtype)
    expected = [math.exp(v) / (1 + math.exp(v)) for v in x.tolist()]
    torch.testing.assert_close(
        logistic(x).double(), torch.tensor(expected, dtype=torch.float64), rtol=20 * torch.finfo(dtype).eps, atol=0
    )
    far = torch.tensor([-math.inf, -1e30, 1e30, math.inf], dtype=dtype, requires_grad=True)
    value = logistic(far)
    assert value[2:].tolist() == [1.0, 1.0]
    assert (value[:2] < 1e-30).all()
    assert torch.autograd.grad(value.sum(), far)[0].tolist() == [0.0] * 4
    assert gradcheck(logistic, torch.tensor([-30.0, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function", [safe_atan2, lambda y, x: logistic(4 * y), lambda y, x: safe_norm(torch.stack([y, x]))]
)
def test_digits_do_not_depend_on_the_place_in_the_tensor(function, dtype):
    y, x = torch.randn((2, 1001), generator=torch.Generator().manual_seed(3), dtype=dtype)
    whole = function(y, x)
    for step in (1, 3, 100):
        pieces = [function(y[k : k + step], x[k : k + step]) for k in range(0, 1001, step)]
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 6, 7, 10, 31, 100])
def test_sums_of_rows_do_not_depend_on_the_length_of_the_rows(n_rows, dtype):
    rows = torch.randn((2, n_rows, 1001), generator=torch.Generator().manual_seed(4), dtype=dtype)
    whole = sum_rows(rows, 1)
    assert whole.shape == (2, 1001)
    torch.testing.assert_close(whole, rows.sum(1), rtol=1e-5, atol=1e-5)
    for step in (1, 3, 100):
        pieces = [sum_rows(rows[..., k : k + step].contiguous(), 1) for k in range(0, 1001, step)]
        assert torch.equal(torch.cat(pieces, -1), whole)
    leaf = rows[..., :3].double().requires_grad_()
    assert gradcheck(lambda x: sum_rows(x, -2), leaf)
