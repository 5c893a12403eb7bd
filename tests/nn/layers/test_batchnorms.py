"""Batch norms: over the last axis, with absent objects left out, with running statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.layers.batchnorms import (
    LCBatchNorm1d,
    RunningBatchNorm1d,
    RunningBatchNorm2d,
    RunningBatchNorm3d,
)

NORMS = [
    nn.BatchNorm1d,
    RunningBatchNorm1d,
    lambda n: nn.BatchNorm1d(n, momentum=None),
    lambda n: nn.BatchNorm1d(n, affine=False),
    lambda n: nn.BatchNorm1d(n, track_running_stats=False),
]
LABELS = ["plain", "running", "cumulative", "not affine", "not tracked"]


def both_modes(*modules):
    for training in (True, False):
        for module in modules:
            module.train(training)
        yield


@pytest.mark.parametrize("shape", [(6, 3), (6, 4, 3), (5, 4, 4, 3)], ids=str)
def test_channels_are_normalised_over_all_other_axes(shape, dtype):
    norm, plain = LCBatchNorm1d(nn.BatchNorm1d(3)).to(dtype), nn.BatchNorm1d(3).to(dtype)
    for _ in both_modes(norm, plain):
        x = torch.randn(shape, dtype=dtype) * torch.tensor([1, 2, 3], dtype=dtype) + 5
        torch.testing.assert_close(norm(x), plain(x.reshape(-1, 3)).reshape(shape))
    torch.testing.assert_close(norm.bn.running_var, plain.running_var)
    assert next(iter(norm.state_dict())) == "bn.weight"


@pytest.mark.parametrize("make", NORMS, ids=LABELS)
def test_a_mask_of_all_changes_nothing(make):
    torch.manual_seed(1)
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    without, with_mask = LCBatchNorm1d(make(3)).double(), LCBatchNorm1d(make(3)).double()
    for _ in both_modes(without, with_mask):
        torch.testing.assert_close(with_mask(x, torch.ones(4, 5, dtype=torch.bool)), without(x))
    for key, value in without.state_dict().items():
        torch.testing.assert_close(with_mask.state_dict()[key], value)


@pytest.mark.parametrize("make", NORMS[:1] + NORMS[2:], ids=LABELS[:1] + LABELS[2:])
def test_statistics_come_from_what_is_there(make):
    x, mask = torch.randn(6, 5, 3, dtype=torch.float64), torch.rand(6, 5) > 0.4
    spoiled = torch.where(mask.unsqueeze(-1), x, 1e3)
    norm, plain = LCBatchNorm1d(make(3)).double(), make(3).double()
    for _ in both_modes(norm, plain):
        torch.testing.assert_close(norm(spoiled, mask)[mask], plain(x[mask]))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(norm.bn.state_dict()[key], value)


def test_running_sums_come_from_what_is_there():
    x, mask = torch.randn(6, 5, 3, dtype=torch.float64), torch.rand(6, 5) > 0.4
    outputs, states = [], []
    for filler in (0.0, 1e3):
        norm = LCBatchNorm1d(RunningBatchNorm1d(3)).double()
        outputs.append(norm(torch.where(mask.unsqueeze(-1), x, filler), mask)[mask])
        states.append(norm.state_dict())
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(states[0], states[1])
    expected = (x[mask] - x[mask].mean(0)) / (x[mask].var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(outputs[0], expected)


class Centred(nn.BatchNorm1d):
    """A batch norm of a user's own."""


def test_other_batch_norms_see_what_is_there():
    x, mask = torch.randn(6, 5, 3, dtype=torch.float64), torch.rand(6, 5) > 0.4
    ours, theirs = LCBatchNorm1d(Centred(3).double()), nn.BatchNorm1d(3).double()
    torch.testing.assert_close(ours(x, mask)[mask], theirs(x[mask]))


def test_gradients_through_a_masked_norm():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    norm = LCBatchNorm1d(nn.BatchNorm1d(2, track_running_stats=False)).double()
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm(x, mask)[mask], (x,))


def test_a_batch_without_objects_teaches_nothing():
    norm = LCBatchNorm1d(nn.BatchNorm1d(2))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    y = norm(torch.randn(3, 4, 2), torch.zeros(3, 4, dtype=torch.bool))
    assert torch.isfinite(y).all()
    torch.testing.assert_close(norm.state_dict(), before)


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"`mask` must have shape \(3, 4\).*got \(3, 5\)"):
        LCBatchNorm1d(nn.BatchNorm1d(2))(torch.randn(3, 4, 2), torch.ones(3, 5, dtype=torch.bool))


# --- running ---


def slow_running(batches, mom=0.1, n_warmup=20, eps=1e-5):
    """The documented recursion, one channel at a time, in plain Python."""
    channels = batches[0].shape[1]
    s, q, n, seen, outputs = [0.0] * channels, [0.0] * channels, 0.0, 0, []
    for x in batches:
        weight = 1 - (1 - mom) / math.sqrt(len(x) - 1 + eps)
        numbers = x.shape[0] * math.prod(x.shape[2:])
        n += weight * (numbers - n)
        seen += len(x)
        out = torch.empty_like(x)
        for c in range(channels):
            s[c] += weight * (float(x[:, c].sum()) - s[c])
            q[c] += weight * (float((x[:, c] ** 2).sum()) - q[c])
            mean = s[c] / n
            variance = q[c] / n - mean**2
            if seen < n_warmup:
                variance = max(variance, 0.01)
            out[:, c] = (x[:, c] - mean) / math.sqrt(variance + eps)
        outputs.append(out)
    return outputs


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (RunningBatchNorm1d, (7, 2)),
        (RunningBatchNorm1d, (7, 2, 3)),
        (RunningBatchNorm2d, (7, 2, 3, 2)),
        (RunningBatchNorm3d, (7, 2, 3, 2, 2)),
    ],
)
def test_equal_to_the_slow_twin_in_training(norm, shape):
    batches = [scale * torch.randn(shape, dtype=torch.float64) + 0.5 for scale in (0.01, 0.02, 1.0, 3.0)]
    layer = norm(2).double()
    for x, expected in zip(batches, slow_running(batches), strict=True):
        torch.testing.assert_close(layer(x), expected)
    assert layer.batch == 28


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    layer = RunningBatchNorm1d(2).double()
    x = torch.randn(64, 2, dtype=torch.float64)
    trained = layer(x)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.eval()
    torch.testing.assert_close(layer(x), trained)  # they were used in training, too
    torch.testing.assert_close(layer.state_dict(), before)


def test_before_training_it_is_the_identity():
    layer = RunningBatchNorm1d(3, eps=1e-12).double().eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x)


def test_one_sample_does_not_upset_the_running_sums():
    layer = RunningBatchNorm1d(2).double()
    x = torch.randn(500, 2, dtype=torch.float64)
    layer(x)
    layer(x[:1])
    found = layer.eval()(x)
    assert found.mean(0).abs().max() < 0.1
    assert (found.std(0) - 1).abs().max() < 0.1


def test_steadier_than_a_batch_norm_for_small_batches():
    """Its purpose: with batches of 4, the same event is normalised alike in every batch."""
    x = torch.randn(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    spread = {}
    for make in (RunningBatchNorm1d, nn.BatchNorm1d):
        layer = make(1).double()
        outputs = []
        for batch in x.split(3):
            y = layer(torch.cat((batch, torch.ones(1, 1, dtype=torch.float64))))
            outputs.append(y[-1].item())
        spread[make] = torch.tensor(outputs[20:]).std().item()
    assert spread[RunningBatchNorm1d] < 0.7 * spread[nn.BatchNorm1d]


def test_gradients_go_through_the_share_of_the_batch_alone():
    layer = RunningBatchNorm1d(2).double()
    layer(torch.randn(30, 2, dtype=torch.float64, requires_grad=True)).sum().backward()
    layer(torch.randn(30, 2, dtype=torch.float64, requires_grad=True)).sum().backward()  # no graph of the first is left
    assert not layer.sums.requires_grad
    state = {key: value.clone() for key, value in layer.named_buffers()}

    def after(x):
        for key, value in state.items():
            layer.get_buffer(key).copy_(value)
        return layer(x)

    assert torch.autograd.gradcheck(after, (torch.randn(5, 2, dtype=torch.float64, requires_grad=True),))


def test_names_of_the_state():
    assert set(RunningBatchNorm1d(2).state_dict()) == {"weight", "bias", "sums", "sqrs", "batch", "count"}
    assert set(RunningBatchNorm1d(2, affine=False).state_dict()) == {"sums", "sqrs", "batch", "count"}


@pytest.mark.parametrize(
    "arguments", [{"nf": 0}, {"nf": 2, "mom": 0}, {"nf": 2, "mom": 1.5}, {"nf": 2, "eps": 0}], ids=str
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(InputError, match=f"`{list(arguments)[-1]}` must"):
        RunningBatchNorm1d(**arguments)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (RunningBatchNorm1d, (3, 5)),
        (RunningBatchNorm1d, (3,)),
        (RunningBatchNorm2d, (3, 2, 4)),
        (RunningBatchNorm3d, (3, 2)),
    ],
)
def test_other_shapes_are_refused(norm, shape):
    with pytest.raises(ShapeError, match=r"`x` must be \(batch, 2 channels"):
        norm(2)(torch.randn(shape))
