"""The step of a WGAN with gradient penalty, for `ConvNet` and `ResNet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range
from diffdet.core.random import Stream
from diffdet.kernels import adversarial
from diffdet.loop.events import Fire
from diffdet.loop.state import LoopState
from diffdet.loop.update import Update
from diffdet.overlay.training.averages import MovingAverage

__all__ = ["WganStep"]


class WganStep:
    """The critic learns from every batch, the generator after every so many.

    Args:
        generator: From ``(image, latent)`` to images.
        critic: From images to scores.
        latent: Length of the latents.
        stream: Source of latents and mixtures.
        rate: Learning rate of both.
        penalty: Weight of the gradient penalty.
        n_critic: Batches of the critic to one update of the generator.
        decay: Of the moving average of the generator's parameters.
    """

    events: tuple[str, ...] = ()
    needs_grad = True

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent: int,
        stream: Stream,
        *,
        rate: float = 1e-4,
        penalty: float = 10.0,
        n_critic: int = 5,
        decay: float = 0.999,
    ) -> None:
        check_in_range("n_critic", n_critic, 1)
        self.generator, self.critic = generator, critic
        self.latent, self.stream = latent, stream
        self.penalty, self.n_critic = penalty, n_critic
        self.average = MovingAverage(generator, decay)
        betas = (0.0, 0.9)
        self._critic_update = Update({"critic": torch.optim.Adam(critic.parameters(), lr=rate, betas=betas)})
        self._generator_update = Update(
            {"generator": torch.optim.Adam(generator.parameters(), lr=rate, betas=betas)}, self.average.update
        )
        self.updates = (self._critic_update, self._generator_update)

    def __call__(self, batch: Tensor, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        """Learn from a batch of real images; in validation, only the distance is measured."""
        device = next(self.generator.parameters()).device
        real = batch.to(device)
        random = self.stream.generator(state.epoch, str(state.phase), state.batch)
        with torch.no_grad():
            fake = self.generator(self._latents(len(real), random, device))
        distance = adversarial.wasserstein_critic(self.critic(real), self.critic(fake))
        if state.phase != "train":
            return {"loss": -distance.detach()}
        mixing = torch.rand(len(real), generator=random).to(device)
        penalty = adversarial.gradient_penalty(self.critic, real, fake, mixing)
        self._critic_update(distance + self.penalty * penalty, fire)
        metrics: dict[str, Tensor | float] = {"loss": -distance.detach(), "penalty": penalty.detach()}
        if (state.batch + 1) % self.n_critic == 0:
            self.critic.requires_grad_(requires_grad=False)
            score = self.critic(self.generator(self._latents(len(real), random, device)))
            self._generator_update(adversarial.hinge_generator(score), fire)
            self.critic.requires_grad_(requires_grad=True)
            metrics["generator"] = -score.detach().mean()
        return metrics

    def _latents(self, n: int, random: torch.Generator, device: torch.device) -> Tensor:
        return torch.randn((n, self.latent), generator=random).to(device)

    def train(self, mode: bool) -> None:
        """Change between training and evaluation."""
        self.generator.train(mode)
        self.critic.train(mode)

    def state_dict(self) -> dict[str, Any]:
        """Both networks and the average."""
        return {
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        self.average.load_state_dict(state["average"])
