"""Callbacks that look after gradients."""

from __future__ import annotations

import logging

import torch
from torch import nn

from diffdet.loop.callbacks import all_finite
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.parameters import named_parameters

__all__ = ["NoMoreNaNs"]

_log = logging.getLogger(__name__)


class NoMoreNaNs(Callback):
    """Sets gradients that are NaN or infinite to zero before the optimisers use them, and keeps count.

    Without it a fit ends at the first such gradient, see `diffdet.loop.callbacks.StopOnNonFinite`. It acts on all
    parameters that panels declare, on budget weights, and on whatever else the optimisers look after, so new kinds of
    panels need no new callback. What it repaired is in ``n_repaired`` and told in the log at the end of every epoch:
    many repairs mean that something is wrong.

    Attributes:
        n_repaired: Gradient elements set to zero since the fit began, by name of the parameter.
    """

    saved = ("n_repaired", "_told")
    transient = ("_names",)

    def __init__(self) -> None:
        self.n_repaired: dict[str, int] = {}
        self._told = 0
        self._names: list[tuple[str, nn.Parameter]] = []

    def on_train_begin(self) -> None:
        """Find the parameters."""
        super().on_train_begin()
        self.n_repaired, self._told = {}, 0
        wrapper = self._wrapper
        names = {id(parameter): (name, parameter) for name, parameter in named_parameters(wrapper.volume).items()}
        for opt_name, optimiser in wrapper.opts.items():
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            for number, parameter in enumerate(parameters):
                names.setdefault(id(parameter), (f"{opt_name}[{number}]", parameter))
        self._names = list(names.values())

    @torch.no_grad()
    def on_backwards_end(self) -> None:
        """Repair the gradients."""
        gradients = [p.grad for _, p in self._names if p.grad is not None]
        if all_finite(gradients):
            return
        for name, parameter in self._names:
            gradient = parameter.grad
            if gradient is None:
                continue
            bad = ~torch.isfinite(gradient)
            n_bad = int(bad.sum())
            if n_bad:
                gradient.masked_fill_(bad, 0.0)
                self.n_repaired[name] = self.n_repaired.get(name, 0) + n_bad
        if self._fit.update is not None:
            self._fit.update.repaired = True

    def on_epoch_end(self) -> None:
        """Tell what was repaired."""
        total = sum(self.n_repaired.values())
        if self._fit.state == "train" and total > self._told:
            _log.warning(
                "epoch %d: %d gradient elements were not finite and set to zero; since the fit began: %s",
                self._fit.epoch,
                total - self._told,
                self.n_repaired,
            )
            self._told = total
