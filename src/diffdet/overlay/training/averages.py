"""Moving averages of a network's weights, and statistics of its norms made anew."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range

__all__ = ["MovingAverage", "refresh_norms"]


class MovingAverage:
    """An average of the parameters of a network over its training: w <- d w + (1 - d) w_now.

    Args:
        network: The network.
        decay: d, at least 0 and below 1.
        start: Updates after which the average begins; until then it is a copy.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999, start: int = 0) -> None:
        check_in_range("decay", decay, 0, 1, high_open=True)
        self.network, self.decay, self.start, self.count = network, decay, start, 0
        self.average = copy.deepcopy(network).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now; buffers are copied."""
        self.count += 1
        decay = self.decay if self.count > self.start else 0.0
        for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for mine, theirs in zip(self.average.buffers(), self.network.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """The average and how many updates it has seen."""
        return {"count": self.count, "average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.count = int(state["count"])
        self.average.load_state_dict(state["average"])


@torch.no_grad()
def refresh_norms(network: nn.Module, paint: Callable[[int], Tensor], n_batches: int) -> None:
    """Make the statistics of batch norms anew: means over batches that the network itself paints.

    Averaged weights have never seen the statistics of the weights that they average.

    Args:
        network: The network; it is in evaluation mode afterwards.
        paint: Passes the batch of a number through the network.
        n_batches: How many.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an equal mean over batches
    network.train()
    for number in range(n_batches):
        paint(number)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
