"""Generators that paint images with a network and keep the lit pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.kernels import pixels
from diffdet.overlay.checkpoints import find_checkpoint
from diffdet.overlay.conditions import NOMINAL, Conditions
from diffdet.overlay.generator import AbsGenerator
from diffdet.overlay.inference import accelerate
from diffdet.overlay.networks.convnet import ConvNet
from diffdet.overlay.networks.iea import N_FREEDOM, IeaGenerator
from diffdet.overlay.networks.resnet import ResNet
from diffdet.overlay.sensors import PXD
from diffdet.overlay.weights import class_order_of, load_weights, read_weights

__all__ = ["ConvNetGenerator", "IeaGanGenerator", "NetworkGenerator", "ResNetGenerator", "paint_event"]

IEA_CUT = -0.26
"""Activations up to this one are empty in published images of ieagan: 6.78 ADU, so that charges of 6 come through."""


class NetworkGenerator(AbsGenerator):
    """Paints one image for each sensor and turns lit pixels into digits.

    Args:
        model: The network, with its weights; it is put into evaluation and frozen.
        compatible: Compute as published generators do, all images in one pass through the network as it is documented,
            fractions of charges cut off, and no threshold: for comparisons, bit by bit. Otherwise the same numbers are
            computed in a faster form, equal to rounding, and what the read-out cannot deliver is taken out.
        precision: Type of the fast form: ``"float32"``, or ``"bf16"`` where speed matters more than a few per cent
            of charge.
        rounding: ``"basf2"`` cuts fractions of charges off, ``"nearest"`` rounds.
        images: Images that pass at a time in the fast form; chosen by the device when None.
        device: Where to compute; the CPU when None.
        conditions: What the detector delivers; when None, all of it above the threshold, or all without a threshold
            where `compatible`.
        provenance: Where the weights come from, for `describe`.

    Raises:
        InputError: If an argument is out of range.
    """

    network: ClassVar[type[nn.Module]]
    conditional: ClassVar[bool] = False
    cut: ClassVar[float | None] = None

    def __init__(
        self,
        model: nn.Module,
        *,
        compatible: bool = False,
        precision: str = "float32",
        rounding: str = "basf2",
        images: int | None = None,
        device: torch.device | str | None = None,
        conditions: Conditions | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(conditions=conditions or (Conditions(threshold=0) if compatible else NOMINAL))
        if not isinstance(model, self.network):
            raise InputError(f"`model` must be a {self.network.__name__}; got {type(model).__name__}")
        check_choice("rounding", rounding, ("basf2", "nearest"))
        if compatible and (precision != "float32" or rounding != "basf2"):
            raise InputError(
                f"`compatible` goes with precision='float32' and rounding='basf2'; got {precision!r} and {rounding!r}"
            )
        self.model = model.to("cpu" if device is None else device).eval().requires_grad_(False)
        self.compatible = compatible
        self.precision = precision
        self.rounding = rounding
        self.provenance = dict(provenance or {})
        self.painter = None if compatible else accelerate(model, precision=precision, images=images)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | None = None, **options: Any) -> Self:
        """Make a generator with the weights of a file; options are those of the class."""
        weights = read_weights(find_checkpoint(cls.name, checkpoint))
        model = cls._network_of(weights.state)
        load_weights(model, weights, name=cls.name)
        provenance = {
            "weights_file": weights.path.name,
            "weights_sha256": weights.sha256,
            "trained_on": weights.metadata.get("trained_on", "not stated in the file"),
        }
        return cls(model, provenance=provenance, **options)

    @classmethod
    def _network_of(cls, state: Mapping[str, Tensor]) -> nn.Module:  # noqa: ARG003
        """A network for a state dict."""
        return cls.network()

    @abstractmethod
    def latent(self, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """The random numbers of an event, in the order in which published generators draw them."""

    def images(self, generator: torch.Generator | None = None) -> Tensor:
        """The images of one event, before conditions.

        Args:
            generator: Source of the random numbers, on the CPU; torch's own when None.

        Returns:
            ``(sensor, u, v)`` ADU, uint8, on the CPU.
        """
        with torch.inference_mode():
            device = next(self.model.parameters()).device
            latent = tuple(numbers.to(device) for numbers in self.latent(generator))
            if self.painter is None:
                raw = self.paint(*latent)[:, 0].cpu()
                return pixels.crop_rows(pixels.charge_from_activation(raw, cut=self.cut)).contiguous()
            threshold = self.conditions.threshold or None
            painted = self.painter.charges(self.start(*latent), rounding=self.rounding, threshold=threshold)
            return painted.cpu()

    def start(self, *latent: Tensor) -> Tensor:
        """What the fast painter takes, of an event's random numbers."""
        return latent[0]

    def paint(self, *latent: Tensor) -> Tensor:
        """All images of an event through the documented network: ``(sensor, 1, 256, 768)``."""
        return self.model(*latent)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One event."""
        images = self.images(generator)
        position, charge = pixels.lit_pixels(images)
        v, row = position % self.layout.n_v, position // self.layout.n_v
        return row // self.layout.n_u, row % self.layout.n_u, v, charge.to(torch.int32)

    def describe(self) -> dict[str, Any]:
        """What the generator is."""
        return {
            "generator": self.name,
            "weights_file": None,
            "weights_sha256": None,
            "trained_on": "not stated",
            **self.provenance,
            "compatible": self.compatible,
            "precision": self.precision,
            "rounding": self.rounding,
            "knows_the_sensor": self.conditional,
            "correlates_sensors": False,
            "conditions": self.conditions.describe(),
        }


class ConvNetGenerator(NetworkGenerator):
    """Background of `convnet`: every sensor gets an arbitrary image; sensors are independent."""

    name = "convnet"
    network = ConvNet

    def latent(self, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """``(40, 96)``."""
        return (torch.randn(len(self.layout), ConvNet.latent, generator=generator),)


class ResNetGenerator(NetworkGenerator):
    """Background of `resnet`: every sensor gets an arbitrary image; sensors are independent."""

    name = "resnet"
    network = ResNet

    def latent(self, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """``(40, 96)``."""
        return (torch.randn(len(self.layout), ResNet.latent, generator=generator),)


class IeaGanGenerator(NetworkGenerator):
    """Background of `ieagan`: every sensor gets an image of its own kind; the published variant correlates them.

    Args:
        model: The network, with its weights.
        class_order: Which label the weights use for which sensor; see `weights.class_order_of`. Published weights were
            trained with ``"lexicographic"`` labels.
        **options: As for `NetworkGenerator`.
    """

    name = "ieagan"
    network = IeaGenerator
    conditional = True
    cut = IEA_CUT

    def __init__(self, model: nn.Module, *, class_order: str | Iterable[str] = "numeric", **options: Any) -> None:
        super().__init__(model, **options)
        self.class_order = class_order if isinstance(class_order, str) else list(class_order)
        self.labels = class_order_of(self.class_order).to(next(model.parameters()).device)

    @classmethod
    def _network_of(cls, state: Mapping[str, Tensor]) -> nn.Module:
        return IeaGenerator(rdof="linear_f.weight" in state)

    def latent(self, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """``(40, 128)``, and ``(40, 4)`` where random numbers enter the relational part."""
        assert isinstance(self.model, IeaGenerator)
        z = torch.randn(len(self.layout), IeaGenerator.latent, generator=generator)
        if not self.model.rdof:
            return (z,)
        return z, torch.randn(len(self.layout), N_FREEDOM, generator=generator)

    def start(self, *latent: Tensor) -> Tensor:
        """The conditions of all images."""
        assert isinstance(self.model, IeaGenerator)
        z, *freedom = latent
        return self.model.condition(z, self.labels, *freedom)

    def paint(self, *latent: Tensor) -> Tensor:
        """All images of an event through the documented network."""
        z, *freedom = latent
        return self.model(z, self.labels, *freedom)

    def describe(self) -> dict[str, Any]:
        """What the generator is."""
        assert isinstance(self.model, IeaGenerator)
        found = super().describe()
        return {**found, "correlates_sensors": self.model.rdof, "class_order": self.class_order}


def paint_event(
    model: nn.Module, *, generator: torch.Generator | None = None, class_order: str | Iterable[str] = "numeric"
) -> Tensor:
    """Images of one event of a network, exactly as published generators compute them. The network stays as it is.

    Args:
        model: A `ConvNet`, `ResNet` or `IeaGenerator` with its weights, in evaluation.
        generator: Source of the random numbers, on the CPU; torch's own when None, as published generators have it.
        class_order: Of an `IeaGenerator`; see `weights.class_order_of`.

    Returns:
        ``(40, 250, 768)`` ADU, uint8, on the CPU.

    Raises:
        InputError: If the model is none of these.
    """
    if not isinstance(model, ConvNet | ResNet | IeaGenerator):
        raise InputError(f"`model` must be a ConvNet, ResNet or IeaGenerator; got {type(model).__name__}")
    device = next(model.parameters()).device
    with torch.no_grad():
        z = torch.randn(len(PXD), model.latent, generator=generator).to(device)
        if isinstance(model, IeaGenerator):
            freedom = torch.randn(len(PXD), N_FREEDOM, generator=generator).to(device) if model.rdof else None
            raw = model(z, class_order_of(class_order).to(device), freedom)
        else:
            raw = model(z)
        cut = IEA_CUT if isinstance(model, IeaGenerator) else None
        return pixels.crop_rows(pixels.charge_from_activation(raw[:, 0].cpu(), cut=cut)).contiguous()
