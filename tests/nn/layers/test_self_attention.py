"""Self-attention: what objects learn from each other."""

from __future__ import annotations

import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.layers.batchnorms import RunningBatchNorm1d
from diffdet.nn.models.layers.self_attention import OffsetSelfAttention, SelfAttention

LAYERS = [SelfAttention, OffsetSelfAttention]


def slow_attention(layer, x):
    """The formula of the docstring for one event (object, feature), one pair at a time."""
    q, k, v = (part(x) for part in (layer.q, layer.k, layer.v))
    n = len(x)
    scores = torch.stack([torch.stack([q[i] @ k[j] for j in range(n)]) for i in range(n)])
    if isinstance(layer, OffsetSelfAttention):
        a = scores.exp() / scores.exp().sum(0, keepdim=True)
        a = a / a.sum(1, keepdim=True)
        return x + layer.out(x - a @ v)
    a = (scores / layer.n_a**0.5).exp()
    return x + layer.out(a / a.sum(1, keepdim=True) @ v)


@pytest.mark.parametrize("make", LAYERS)
def test_equal_to_the_slow_twin(make, dtype):
    layer = make(4, 3, act="swish").to(dtype)
    x = torch.randn(3, 5, 4, dtype=dtype)
    torch.testing.assert_close(layer(x), torch.stack([slow_attention(layer, event) for event in x]))


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("filler", [1e5, float("nan")])
def test_masked_equals_absent(make, training, filler):
    layer = make(4, 3, bn=True, act="swish").double()
    with torch.no_grad():
        layer(torch.randn(50, 6, 4, dtype=torch.float64))  # so that the statistics are not those of nothing
    layer.train(training)
    state = {key: value.clone() for key, value in layer.named_buffers()}
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, False, True]]).expand(2, 6)
    found = layer(x.masked_fill(~mask.unsqueeze(-1), filler), mask)
    for key, value in state.items():
        layer.get_buffer(key).copy_(value)
    torch.testing.assert_close(found[:, mask[0]], layer(x[:, mask[0]]))
    assert bool((found[~mask] == 0).all())


@pytest.mark.parametrize("make", LAYERS)
def test_the_order_of_objects_does_not_matter(make):
    layer = make(4, 3).double()
    x, order = torch.randn(2, 6, 4, dtype=torch.float64), torch.randperm(6)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


@pytest.mark.parametrize("make", LAYERS)
def test_neighbourhoods_are_events_of_their_own(make):
    layer = make(4, 3).double()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)  # (batch, object, neighbour, feature)
    torch.testing.assert_close(layer(x), layer(x.reshape(6, 5, 4)).reshape(x.shape))


@pytest.mark.parametrize("make", LAYERS)
def test_gradients_with_an_event_without_objects(make):
    layer = make(2, 2, act="tanh").double()
    mask = torch.tensor([[True, False, True], [False, False, False]])
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, mask), (x,))


def test_settings_reach_the_dense_layer():
    layer = SelfAttention(4, 3, do=0.2, bn=True, act="selu", bn_class=RunningBatchNorm1d)
    names = [type(part).__name__ for part in layer.out]
    assert names == ["Linear", "SELU", "LCBatchNorm1d", "AlphaDropout"]
    assert isinstance(layer.out[2].bn, RunningBatchNorm1d)
    assert layer.get_out_size() == 4


def test_bad_input_is_refused():
    for arguments in ({"n_fpv": 0, "n_a": 2}, {"n_fpv": 2, "n_a": 0}):
        with pytest.raises(InputError, match="must be a whole number of at least 1; got 0"):
            SelfAttention(**arguments)
    with pytest.raises(InputError, match="Did you mean 'swish'"):
        SelfAttention(2, 2, act="swich")
    layer = SelfAttention(3, 2)
    with pytest.raises(ShapeError, match=r"`x` must have shape \(\*batch, object, 3\); got \(2, 5, 4\)"):
        layer(torch.randn(2, 5, 4))
    with pytest.raises(ShapeError, match=r"`mask` must have shape \(2, 5\); got \(2, 4\)"):
        layer(torch.randn(2, 5, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"`mask` must be boolean, .*; got torch.float32"):
        layer(torch.randn(2, 5, 3), torch.ones(2, 5))
