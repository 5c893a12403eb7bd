"""Makes the generator behind a `PXDBackgroundGenerator`: a fast one where there is one, else the documented one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.kernels import pixels
from diffdet.overlay.checkpoints import find_checkpoint
from diffdet.overlay.conditions import NOMINAL, Conditions
from diffdet.overlay.generator import AbsGenerator
from diffdet.overlay.network_generators import ConvNetGenerator, IeaGanGenerator, NetworkGenerator, ResNetGenerator
from diffdet.overlay.networks.convnet import ConvNet
from diffdet.overlay.networks.iea import IeaGenerator
from diffdet.overlay.networks.resnet import ResNet
from diffdet.overlay.weights import load_weights, read_weights
from diffdet.pxd.background_generator.models import attribute_of

__all__ = ["ModelGenerator", "Sequence", "make_source", "threads"]

_FAST: dict[type[nn.Module], type[NetworkGenerator]] = {
    ConvNet: ConvNetGenerator,
    ResNet: ResNetGenerator,
    IeaGenerator: IeaGanGenerator,
}


class ModelGenerator(AbsGenerator):
    """Events of any model that keeps the documented contract: a class `Model` and a function `generate`.

    `generate` draws from torch's own generator; it is set for every event and put back afterwards.

    Args:
        name: Of the model.
        model: Its network.
        generate: Its function.
        conditions: What the detector delivers.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        generate: Callable[[nn.Module], Tensor],
        *,
        conditions: Conditions | None = None,
    ) -> None:
        super().__init__(conditions=NOMINAL if conditions is None else conditions)
        self.model_name, self.model, self.generate = name, model, generate

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | None = None, **options: Any) -> Self:  # noqa: ARG003
        """Not offered: a model is chosen by its name, with `make_source`."""
        raise NotSupportedError("a `ModelGenerator` is made from a model, not from a file; use `make_generator`")

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One event."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            images = self.generate(self.model)
        shape = (len(self.layout), self.layout.n_u, self.layout.n_v)
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or tuple(images.shape) != shape:
            given = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
            raise InputError(f"`generate` of the model {self.model_name!r} must return uint8 of {shape}; got {given}")
        position, charge = pixels.lit_pixels(images.cpu().contiguous())
        v, row = position % self.layout.n_v, position // self.layout.n_v
        return row // self.layout.n_u, row % self.layout.n_u, v, charge.to(torch.int32)

    def describe(self) -> dict[str, Any]:
        """What the generator is."""
        return {"generator": self.model_name, "weights_sha256": None, "trained_on": "not stated"}


class Sequence:
    """Random numbers as published generators draw them: one sequence for the whole job, event after event.

    The numbers are those of torch's own generator after `torch.manual_seed(seed)`, which itself stays untouched.

    Args:
        seed: From -2**63 to 2**63 - 1.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)


def make_source(
    name: str,
    checkpoint: str | None,
    *,
    folder: str | None,
    fetch: Callable[[str], str] | None,
    options: dict[str, Any],
) -> tuple[AbsGenerator, Any, Callable[[Any], Tensor]]:
    """The generator of a model, its instance of `Model`, and its function `generate`.

    Args:
        name: Of the model.
        checkpoint: File of weights; None for the default.
        folder: Of payloads, where no file is given.
        fetch: Asks the conditions database for the model's payload; None where there is none.
        options: Of the generator.

    Raises:
        ModuleNotFoundError: If the model has no Python module.
        AttributeError: If that has no `Model` or `generate`.
        CheckpointError: If the weights do not fit or there are none.
        StorageError: If a file cannot be read.
    """
    generate: Callable[[Any], Tensor] = attribute_of(name, "generate")
    make_model: Callable[..., nn.Module] = attribute_of(name, "Model")
    if name == "clusters":
        from diffdet.overlay.clusters.generator import ClusterGenerator

        accepted = {key: value for key, value in options.items() if key == "conditions" and value is not None}
        path = None if checkpoint is None and folder is None else find_checkpoint(name, checkpoint, folder=folder)
        source = ClusterGenerator.from_checkpoint(path, **accepted)
        return source, source, generate
    if checkpoint is None and folder is None and fetch is not None:
        checkpoint = fetch(name)
    weights = read_weights(find_checkpoint(name, checkpoint, folder=folder))
    if name == "ieagan" and "linear_f.weight" in weights.state:
        model = make_model(rdof=True)
    else:
        model = make_model()
    load_weights(model, weights, name=name)
    model.eval().requires_grad_(False)
    provenance = {
        "weights_file": weights.path.name,
        "weights_sha256": weights.sha256,
        "trained_on": weights.metadata.get("trained_on", "not stated in the file"),
    }
    for network, kind in _FAST.items():
        if isinstance(model, network):
            if not isinstance(model, IeaGenerator):
                options = {key: value for key, value in options.items() if key != "class_order"}
            return kind(model, provenance=provenance, **options), model, generate
    return ModelGenerator(name, model, generate, conditions=options.get("conditions")), model, generate


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use a number of threads inside operations, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
