"""Automatic mixed precision: which types the arithmetic takes, and updates whose loss is scaled against underflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffdet.core.checks import check_choice
from diffdet.core.errors import NotSupportedError
from diffdet.loop.events import Fire
from diffdet.loop.update import Update

__all__ = ["ScaledUpdate", "autocast_type"]

_TYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_type(amp: bool | str, device: torch.device) -> torch.dtype | None:
    """Type of the arithmetic under mixed precision.

    Args:
        amp: True for what suits the device, ``"bfloat16"`` or ``"float16"``; False for none.
        device: Where the network is.

    Raises:
        InputError: If the type is unknown.
        NotSupportedError: If the device cannot do it.
    """
    if amp is False:
        return None
    if amp is True:
        if device.type != "cuda":
            raise NotSupportedError(f"`amp` = True needs a CUDA device; the network is on {device}")
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    check_choice("amp", amp, _TYPES)
    if amp == "float16" and device.type == "cpu":
        raise NotSupportedError("`amp` = 'float16' needs a CUDA device; on the CPU use 'bfloat16'")
    return _TYPES[amp]


class ScaledUpdate(Update):
    """An update that scales the loss before backward and the gradients back after it, for arithmetic in float16.

    Where a gradient overflows, the step is left out and the scale halved; after ``interval`` good steps it is doubled.

    Args:
        optimisers: As in `Update`.
        after_step: As in `Update`.
        scale: Scale to begin with.
        interval: Good steps before it is doubled.

    Reference: P. Micikevicius et al., "Mixed precision training", arXiv:1710.03740, section 3.2.
    """

    def __init__(
        self,
        optimisers: Optimizer | Iterable[Optimizer] | Mapping[str, Optimizer],
        after_step: Callable[[], None] | None = None,
        *,
        scale: float = 65536.0,
        interval: int = 2000,
    ) -> None:
        super().__init__(optimisers, after_step)
        self.scale = scale
        self.interval = interval
        self.n_good = 0

    def __call__(self, loss: Tensor, fire: Fire) -> bool:
        """Compute gradients of a scaled loss and let the optimisers step, unless one overflowed."""

        def told(event: str, *, update: Update | None = None) -> None:
            if event == "on_backwards_end":
                self._unscale()
            fire(event, update=update)

        changed = super().__call__(loss * self.scale, told)
        self.loss = loss.detach()
        return changed

    def _unscale(self) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if not grads:
            return
        for grad in grads:
            grad.div_(self.scale)
        # One look at the device; what several processes share is looked at before it is averaged.
        bad = torch.stack([~torch.isfinite(grad).all() for grad in grads]).any().to(grads[0].dtype)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad)
        if bool(bad):
            self.skip = True
            self.scale = max(self.scale / 2.0, 1.0)
            self.n_good = 0
            for parameter in self.parameters:
                parameter.grad = None
        else:
            self.n_good += 1
            if self.n_good >= self.interval:
                self.scale, self.n_good = self.scale * 2.0, 0

    def state_dict(self) -> dict[str, Any]:
        """What an update knows, and the scale."""
        return {**super().state_dict(), "scale": self.scale, "n_good": self.n_good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self.scale, self.n_good = float(state["scale"]), int(state["n_good"])
