"""Networks with weights in which every kind of parameter and buffer matters."""

from __future__ import annotations

import torch
from torch import nn

from diffdet.overlay.networks.convnet import ConvNet
from diffdet.overlay.networks.iea import IeaGenerator
from diffdet.overlay.networks.resnet import ResNet

NETWORKS = {
    "convnet": ConvNet,
    "resnet": ResNet,
    "ieagan": IeaGenerator,
    "ieagan_public_rdof": lambda: IeaGenerator(rdof=True),
}


def sparse_resnet() -> nn.Module:
    """A `resnet` whose images hold few lit pixels, as those of trained ones do."""
    model = network("resnet")
    with torch.no_grad():
        model.conv.weight *= 20
        model.conv.bias.fill_(1.75)
    return model


def network(name: str, seed: int = 1) -> nn.Module:
    """A network in evaluation: norms that do something, biases that are not 0, singular vectors off their start."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().eval()
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.state_dict(keep_vars=True).items():
        with torch.no_grad():
            if key.endswith("_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif key.endswith(("_mean", "bias")) and tensor.ndim == 1:
                tensor.normal_(0, 0.1, generator=generator)
            elif tensor.ndim == 1 and key.endswith(("weight", "gain")):
                tensor.uniform_(0.5, 1.5, generator=generator)
                tensor[::7] *= -1  # published gains may be negative
            elif key.endswith("u0"):
                tensor.normal_(generator=generator)
            elif key.endswith("sv0"):
                tensor.fill_(77.0)  # a record only: nothing may divide by it
    return model
