"""Networks: names and shapes of their weights, and what they compute."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from diffdet.core.errors import ShapeError
from diffdet.overlay.networks.iea import IeaGenerator
from diffdet.overlay.networks.layers import RelationalEncoder, SNConv2d, SNEmbedding, SNLinear
from overlay_scenes import NETWORKS, network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_key_and_shape_is_that_of_published_weights(name, shared_dir):
    published = json.loads((shared_dir / "spec" / "pxd-state-dicts.json").read_text())["models"][name]
    model = NETWORKS[name]()
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == published["state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == published["parameters"]
    whole = {key for key, tensor in model.state_dict().items() if tensor.dtype == torch.int64}
    assert whole == set(published["int64_keys"])
    parameters = {key for key, _ in model.named_parameters()}
    buffers = set(published["state_dict"]) - parameters
    assert all(key.endswith(tuple(published["buffer_key_suffixes"])) for key in buffers)


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_images_have_256_rows_and_stay_between_minus_one_and_one(name):
    with torch.no_grad():
        image = network(name)(torch.zeros(1, 96))
    assert image.shape == (1, 1, 256, 768)
    assert image.abs().max() <= 1


def test_spectral_norm_in_evaluation_is_a_constant_of_the_rule():
    layer = SNLinear(5, 4).eval()
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(2))
        layer.sv0.fill_(50.0)
    before = layer.u0.clone()
    v = functional.normalize(layer.u0 @ layer.weight)
    u = functional.normalize(v @ layer.weight.T)
    expected = layer.weight / (v @ layer.weight.T @ u.T)
    torch.testing.assert_close(layer.normalised_weight(), expected)
    torch.testing.assert_close(layer.normalised_weight(), expected)
    assert torch.equal(layer.u0, before)


@pytest.mark.parametrize(
    "layer", [SNLinear(5, 4), SNConv2d(3, 4, 3), SNEmbedding(6, 3)], ids=lambda x: type(x).__name__
)
def test_spectral_norm_in_training_follows_the_weight(layer):
    layer.train()
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(2))
        for _ in range(200):
            weight = layer.normalised_weight()
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-4)
    assert layer.sv0.item() == pytest.approx(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item(), rel=1e-4)
    layer.normalised_weight().sum().backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_attention_layout_against_the_formula():
    encoder = RelationalEncoder(8, 2, 8).eval()
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    layer = encoder.layers[0]
    normed = layer.norm1(x)[0]
    projected = layer.self_attn.qkv_proj(normed)
    heads = []
    for h in range(2):
        q, k, v = projected[:, 12 * h : 12 * h + 12].split(4, dim=1)
        heads.append((q @ k.T / 2).softmax(1) @ v)
    y = x[0] + layer.self_attn.o_proj(torch.cat(heads, 1))
    y = y + layer.linear_net[3](layer.linear_net[0](layer.norm2(y)).relu())
    torch.testing.assert_close(encoder(x)[0], encoder.norm(y))


def test_only_the_published_variant_lets_chance_into_the_relations():
    labels = torch.arange(40)
    plain, free = network("ieagan"), network("ieagan_public_rdof")
    z = torch.zeros(40, 128)
    with torch.no_grad():
        first, second = (plain.condition(z, labels), plain.condition(z, labels))
        assert torch.equal(first, second)
        freedom = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
        one = free.condition(z, labels, freedom)
        freedom[7] += 1.0  # the numbers of one sensor reach the others through the attention
        other = free.condition(z, labels, freedom)
    assert ((one - other)[:, :128].abs().amax(1) > 0).all()


def test_numbers_of_other_events_are_refused():
    model = IeaGenerator(rdof=True)
    with pytest.raises(ShapeError, match="`z`"):
        model.condition(torch.zeros(39, 128), torch.arange(40), torch.zeros(40, 4))
    with pytest.raises(ShapeError, match="`freedom`"):
        model.condition(torch.zeros(40, 128), torch.arange(40))
