"""One change of the parameters that one set of optimisers looks after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from diffdet.core.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from diffdet.loop.events import Fire

__all__ = ["Update"]


class Update:
    """Gradients to zero, backward, step: for one set of optimisers.

    A step calls it as often as it likes, so that two networks which train against each other are two updates.

    Args:
        optimisers: One optimiser, several, or several by name. A dict is kept, not copied: an optimiser that the caller
            replaces in it is used from then on.
        after_step: Called when the parameters have changed, for example to bring them back into their bounds; not while
            the update is frozen.

    Attributes:
        frozen: While true, gradients are computed and events fire, but parameters stay. For warm-ups.
        skip: As `frozen`, for the one call in progress; a callback sets it when the gradients must not be used.
        repaired: Whether a callback has repaired gradients during the call in progress.
        loss: Loss of the call in progress, or of the last one.
        n_steps: How often it has changed the parameters.
    """

    def __init__(
        self,
        optimisers: Optimizer | Iterable[Optimizer] | Mapping[str, Optimizer],
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self.optimisers: Mapping[str, Optimizer] = _by_name(optimisers)
        self.after_step = after_step
        self.frozen = False
        self.skip = False
        self.repaired = False
        self.loss: Tensor | None = None
        self.n_steps = 0

    @property
    def parameters(self) -> list[Parameter]:
        """Every parameter that the optimisers look after, each once."""
        found: dict[int, Parameter] = {}
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    found.setdefault(id(parameter), parameter)
        return list(found.values())

    def name_of(self, parameter: Tensor) -> str:
        """Where a parameter stands: name of its optimiser and its number there, for messages."""
        for name, optimiser in self.optimisers.items():
            numbered = enumerate(p for group in optimiser.param_groups for p in group["params"])
            for number, candidate in numbered:
                if candidate is parameter:
                    return f"{name}[{number}]"
        return "a parameter without optimiser"

    def __call__(self, loss: Tensor, fire: Fire) -> bool:
        """Compute gradients of a loss and let the optimisers step.

        Args:
            loss: Single number, with a graph.
            fire: Tells the callbacks.

        Returns:
            Whether the parameters were changed.

        Raises:
            InputError: If the loss is no single number or depends on no parameter.
        """
        if loss.numel() != 1 or not loss.requires_grad:
            raise InputError(
                f"`loss` must be a single number that depends on the parameters; got shape {tuple(loss.shape)}, "
                f"requires_grad = {loss.requires_grad}. Is every parameter frozen or detached?"
            )
        self.loss, self.skip, self.repaired = loss, False, False
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        fire("on_backwards_begin", update=self)
        loss.backward()
        fire("on_backwards_end", update=self)
        changed = not (self.frozen or self.skip)
        if changed:
            for optimiser in self.optimisers.values():
                optimiser.step()
        fire("on_step_end", update=self)
        changed = changed and not self.skip  # a callback may have taken the step back
        if changed:
            self.n_steps += 1
            if self.after_step is not None:
                with torch.no_grad():
                    self.after_step()
        self.loss = loss.detach()
        return changed

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each optimiser's first group, by name."""
        return {name: float(opt.param_groups[0]["lr"]) for name, opt in self.optimisers.items() if opt.param_groups}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the optimisers know: rates, momenta, moments."""
        return {
            "frozen": self.frozen,
            "n_steps": self.n_steps,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If the optimisers are others than those that were saved.
        """
        self.frozen = bool(state["frozen"])
        self.n_steps = int(state["n_steps"])
        load_optimisers(self.optimisers, state["optimisers"])


def _by_name(optimisers: Optimizer | Iterable[Optimizer] | Mapping[str, Optimizer]) -> Mapping[str, Optimizer]:
    """Optimisers by name; those without one are numbered."""
    if isinstance(optimisers, Optimizer):
        return {"optimiser": optimisers}
    if isinstance(optimisers, Mapping):
        return cast("Mapping[str, Optimizer]", optimisers)
    return {f"optimiser_{number}": optimiser for number, optimiser in enumerate(optimisers)}


def load_optimisers(optimisers: Mapping[str, Optimizer], states: Mapping[str, Any]) -> None:
    """Give every optimiser its saved state.

    Raises:
        CheckpointError: If names, numbers of groups or numbers of parameters differ.
    """
    if set(optimisers) != set(states):
        raise CheckpointError(
            f"the saved optimisers are {sorted(states)}, those to restore are {sorted(optimisers)}: "
            "use the same as when the state was saved"
        )
    for name, optimiser in optimisers.items():
        try:
            optimiser.load_state_dict(states[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the saved state of the optimiser `{name}` does not fit it: {error}") from error
