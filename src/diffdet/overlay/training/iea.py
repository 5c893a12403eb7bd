"""The step of IEA-GAN: one event at a time, hinge losses, and losses of the relations between its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.random import Stream
from diffdet.kernels import adversarial
from diffdet.loop.events import Fire
from diffdet.loop.state import LoopState
from diffdet.loop.update import Update
from diffdet.overlay.networks.iea import N_FREEDOM, IeaGenerator
from diffdet.overlay.training.averages import MovingAverage
from diffdet.overlay.training.discriminator import Discriminator

__all__ = ["IeaStep", "LossWeights"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses beside the hinge losses.

    Attributes:
        contrastive: Of `contrastive_2c`; both networks.
        uniformity: Of `uniformity`; both networks.
        intra_event: Of `intra_event`; the generator.
        orthogonal: Of the gradient that makes rows of the generator's weights orthogonal.
    """

    contrastive: float = 1.0
    uniformity: float = 0.1
    intra_event: float = 1.0
    orthogonal: float = 1e-4


class IeaStep:
    """Discriminator and generator learn in turn from every event.

    Images of both kinds are judged as they are: what would move or brighten them breaks what is learnt, because the
    pitch changes along v and masks lie at fixed places.

    Args:
        generator: The generator.
        discriminator: The discriminator.
        sensors: Indices of the sensors that make up an event.
        stream: Source of latents.
        rate: Learning rate of both.
        weights: Of the losses.
        decay: Of the moving average of the generator's parameters.
        average_from: Updates after which the average begins.
    """

    events: tuple[str, ...] = ()
    needs_grad = False

    def __init__(
        self,
        generator: IeaGenerator,
        discriminator: Discriminator,
        sensors: Tensor,
        stream: Stream,
        *,
        rate: float = 5e-5,
        weights: LossWeights | None = None,
        decay: float = 0.9999,
        average_from: int = 10_000,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.sensors, self.stream = sensors, stream
        self.weights = LossWeights() if weights is None else weights
        self.average = MovingAverage(generator, decay, average_from)
        adam: Callable[[nn.Module], torch.optim.Optimizer] = lambda network: torch.optim.Adam(  # noqa: E731
            network.parameters(), lr=rate, betas=(0.0, 0.999), eps=1e-6
        )
        self._discriminator_update = Update({"discriminator": adam(discriminator)})
        self._generator_update = Update({"generator": adam(generator)}, self.average.update)
        self.updates = (self._discriminator_update, self._generator_update)
        self._rows = [
            parameter
            for name, parameter in generator.named_parameters()
            if parameter.ndim >= 2 and not name.startswith("shared")
        ]

    def __call__(self, batch: Tensor, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        """Learn from the images of one event; in validation, only the discriminator's loss is measured."""
        device = next(self.generator.parameters()).device
        real, labels = batch.to(device), self.sensors.to(device)
        random = self.stream.generator(state.epoch, str(state.phase), state.batch)
        with torch.no_grad():
            fake = self.generator(*self._latents(random, device))
        judged, forged = self.discriminator(real, labels), self.discriminator(fake, labels)
        hinge = adversarial.hinge_critic(judged.score, forged.score)
        if state.phase != "train":
            return {"loss": hinge}
        contrast = adversarial.contrastive_2c(judged.embedding, judged.proxy)
        even = adversarial.uniformity(judged.embedding)
        weights = self.weights
        self._discriminator_update(hinge + weights.contrastive * contrast + weights.uniformity * even, fire)

        wanted = judged.embedding.detach()
        self.discriminator.requires_grad_(requires_grad=False)
        forged = self.discriminator(self.generator(*self._latents(random, device)), labels)
        score = adversarial.hinge_generator(forged.score)
        related = adversarial.intra_event(wanted, forged.embedding)
        loss = (
            score
            + weights.contrastive * adversarial.contrastive_2c(forged.embedding, forged.proxy)
            + weights.uniformity * adversarial.uniformity(forged.embedding)
            + weights.intra_event * related
            + self._straighten()
        )
        self._generator_update(loss, fire)
        self.discriminator.requires_grad_(requires_grad=True)
        return {
            "loss": hinge.detach(),
            "generator": score.detach(),
            "contrastive": contrast.detach(),
            "uniformity": even.detach(),
            "intra_event": related.detach(),
        }

    def _straighten(self) -> Tensor:
        """A number whose gradient is that of the orthogonal penalty; its value has no meaning and is zero."""
        total = torch.zeros((), device=self._rows[0].device)
        for weight in self._rows:
            slope = adversarial.off_diagonal_gradient(weight.detach())
            total = total + (slope * (weight - weight.detach())).sum()
        return self.weights.orthogonal * total

    def _latents(self, random: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
        labels = self.sensors
        z = torch.randn((len(labels), self.generator.latent), generator=random).to(device)
        if not self.generator.rdof:
            return z, labels.to(device)
        return z, labels.to(device), torch.randn((len(labels), N_FREEDOM), generator=random).to(device)

    def train(self, mode: bool) -> None:
        """Change between training and evaluation."""
        self.generator.train(mode)
        self.discriminator.train(mode)

    def state_dict(self) -> dict[str, Any]:
        """Both networks and the average."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
