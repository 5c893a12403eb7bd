"""Fast painters paint what the documented networks paint."""

from __future__ import annotations

import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.kernels import pixels
from diffdet.overlay.inference import accelerate
from overlay_scenes import network


def latents(name, model, n=2):
    generator = torch.Generator().manual_seed(5)
    if not name.startswith("ieagan"):
        return torch.randn(n, 96, generator=generator)
    z, freedom = torch.randn(40, 128, generator=generator), torch.randn(40, 4, generator=generator)
    with torch.no_grad():
        return model.condition(z, torch.arange(40), freedom if model.rdof else None)[:n]


def documented(name, model, latent):
    with torch.no_grad():
        images = model.paint(latent) if name.startswith("ieagan") else model(latent)
    return images[:, 0, 3:253]


@pytest.mark.parametrize("name", ["convnet", "resnet", "ieagan_public_rdof"])
def test_painters_equal_documented_networks_to_rounding(name):
    model = network(name)
    latent = latents(name, model)
    expected = documented(name, model, latent)
    found = accelerate(model).activations(latent)
    assert found.shape == (2, 250, 768)
    scale = expected.abs().max().item()
    # a hundred units of the last place after some twenty layers; ieagan's condition stretches them
    assert (found - expected).abs().max().item() < (1e-4 if name.startswith("ieagan") else 2e-5) * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "resnet", "ieagan_public_rdof"])
def test_in_double_precision_painters_are_exact(name):
    model = network(name).double()
    latent = latents(name, model.float()).double()[:1]
    model = model.double()
    expected = documented(name, model, latent)
    found = accelerate(model, precision="float64").activations(latent)
    assert (found - expected).abs().max().item() < 1e-11 * expected.abs().max().item()


def test_the_number_of_images_a_pass_changes_nothing_but_rounding():
    model = network("resnet")
    latent = latents("resnet", model, 3)
    one = accelerate(model, images=1).activations(latent)
    three = accelerate(model, images=3).activations(latent)
    assert (one - three).abs().max().item() < 1e-6


def test_the_number_of_threads_changes_nothing():
    model = network("resnet")
    latent = latents("resnet", model, 3)
    painter = accelerate(model)
    one = painter.charges(latent)
    torch.set_num_threads(2)
    try:
        two = painter.charges(latent)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, two)


def test_brain_floats_are_near():
    model = network("resnet")
    latent = latents("resnet", model, 1)
    expected = documented("resnet", model, latent)
    found = accelerate(model, precision="bf16").activations(latent)
    assert found.dtype == torch.float32
    assert (found - expected).square().mean().sqrt().item() < 0.05 * expected.std().item()


@pytest.mark.parametrize("share", [0.01, 0.7], ids=["few lit", "many lit"])
@pytest.mark.parametrize("rounding", ["basf2", "nearest"])
def test_charges_of_sparse_and_full_images_are_those_of_the_activations(share, rounding):
    class Ready(type(accelerate(network("resnet")))):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.dtype, self.images = torch.float32, 1
            self.register_buffer("there", torch.zeros(1))

        def begin(self, latent):
            return latent

        def finish(self, start):
            return start

    generator = torch.Generator().manual_seed(3)
    lit = torch.rand(2, 250, 768, generator=generator) < share
    raw = torch.where(lit, torch.randn(lit.shape, generator=generator), -3.0)
    found = Ready().charges(raw, rounding=rounding, threshold=7)
    assert torch.equal(found, pixels.charge_from_activation(raw.tanh(), rounding=rounding, threshold=7))


def test_painters_leave_the_network_alone():
    model = network("ieagan").train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    accelerate(model)
    assert model.training
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_wrong_arguments_are_refused():
    model = network("resnet")
    with pytest.raises(InputError, match=r"`precision`.*'bf16'"):
        accelerate(model, precision="bf15")
    with pytest.raises(InputError, match="`images`"):
        accelerate(model, images=0)
    with pytest.raises(InputError, match="`model`"):
        accelerate(torch.nn.Linear(1, 1))
