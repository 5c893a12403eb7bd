"""Small steps to run loops with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffdet.core import storage
from diffdet.loop import Callback, Loop, LoopState, Update
from diffdet.loop.events import LOOP_EVENTS, Fire


class LineStep:
    """Fits a line with noise from torch's default generator, so that a resumed run must restore that, too."""

    events = ("on_sample",)
    needs_grad = False

    def __init__(self, lr: float = 0.1, kind: str = "sgd") -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = nn.Linear(2, 1)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.normal_(generator=generator)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "weight": torch.optim.SGD([self.model.weight], lr=lr, momentum=0.9)
            if kind == "sgd"
            else torch.optim.Adam([self.model.weight], lr=lr, amsgrad=True),
            "bias": torch.optim.Adam([self.model.bias], lr=lr),
        }
        self.updates = [Update(self.optimisers)]
        self.grad_modes: list[tuple[str | None, bool, bool]] = []

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def __call__(self, batch: Tensor, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        self.grad_modes.append((state.phase, self.model.training, torch.is_grad_enabled()))
        fire("on_sample")
        noise = 0.1 * torch.randn(len(batch)) if state.phase == "train" else 0.0
        target = batch @ torch.tensor([1.0, -2.0]) + 0.5 + noise
        loss = (self.model(batch)[:, 0] - target).square().mean()
        if state.phase == "train":
            self.updates[0](loss, fire)
        return {"loss": loss, "size": float(len(batch))}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])

    def bits(self) -> list[bytes]:
        """Parameters and the state of the optimisers, to compare to the last bit."""
        found = [p.detach().numpy().tobytes() for p in self.model.parameters()]
        for optimiser in self.optimisers.values():
            for values in optimiser.state_dict()["state"].values():
                found += [v.numpy().tobytes() for v in values.values() if isinstance(v, Tensor)]
            found.append(repr([{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]).encode())
        return found


class AdversarialStep:
    """Two players on one loop: k updates of the critic to one of the generator."""

    events = ("on_critic_done",)
    needs_grad = False

    def __init__(self, k: int = 2) -> None:
        self.k = k
        self.generator = nn.Parameter(torch.tensor([3.0]))
        self.critic = nn.Parameter(torch.tensor([1.0]))
        self.average = torch.tensor([3.0])
        self.updates = [
            Update({"critic": torch.optim.SGD([self.critic], lr=0.1)}),
            Update({"generator": torch.optim.Adam([self.generator], lr=0.1)}, after_step=self._mean),
        ]

    def _mean(self) -> None:
        self.average.lerp_(self.generator, 0.5)

    def train(self, mode: bool) -> None:
        pass

    def __call__(self, batch: Tensor, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        critic_update, generator_update = self.updates
        loss = torch.zeros(())
        for _ in range(self.k):
            loss = self.critic * (self.generator.detach() - batch.mean()) + self.critic.square()
            critic_update(loss, fire)
        fire("on_critic_done")
        generator_loss = -self.critic.detach() * self.generator + self.generator.square()
        generator_update(generator_loss, fire)
        return {"critic": loss, "generator": generator_loss}

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator, "critic": self.critic, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.generator.copy_(state["generator"])
            self.critic.copy_(state["critic"])
            self.average.copy_(state["average"])


def recorder(events: tuple[str, ...]) -> tuple[Callback, list[str]]:
    """A callback that writes down every event, and its list."""
    seen: list[str] = []

    class Recorder(Callback):
        pass

    for event in events:
        setattr(Recorder, event, lambda _self, event=event: seen.append(event))
    return Recorder(), seen


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing to the disk guards against power cuts, which do not happen here, and takes most of the time."""
    monkeypatch.setattr(storage, "_fsync", lambda descriptor: None)


@pytest.fixture
def line_step() -> type[LineStep]:
    return LineStep


@pytest.fixture
def adversarial_step() -> type[AdversarialStep]:
    return AdversarialStep


@pytest.fixture
def record() -> Callable[..., tuple[Callback, list[str]]]:
    return lambda *more: recorder((*LOOP_EVENTS, *more))


@pytest.fixture
def data() -> Callable[[int], list[Tensor]]:
    """Three batches that differ from epoch to epoch."""

    def batches(epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(epoch)
        return list(torch.randn(3, 8, 2, generator=generator))

    return batches


@pytest.fixture
def valid_data() -> list[Tensor]:
    return list(torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(99)))


@pytest.fixture
def run_loop(data: Callable[[int], list[Tensor]], valid_data: list[Tensor]) -> Iterator[Callable[..., Loop[Tensor]]]:
    def run(step: Any, callbacks: list[Callback] | None = None, n_epochs: int = 2, **options: Any) -> Loop[Tensor]:
        resume = options.pop("resume", False)
        loop: Loop[Tensor] = Loop(step, callbacks or [], **options)
        loop.run(data, valid_data, n_epochs=n_epochs, resume=resume)
        return loop

    return run  # type: ignore[return-value]
