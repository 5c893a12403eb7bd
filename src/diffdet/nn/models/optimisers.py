"""Optimisers by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError

__all__ = ["OPTIMISERS", "make_optimiser", "optimiser_class", "read_opt_args"]

OptimiserClass = Callable[..., Optimizer]

OPTIMISERS: Final[dict[str, type[Optimizer]]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}
"""Optimisers that can be asked for by name."""

DEFAULT_RATE: Final = 2e-3


def optimiser_class(opt: str | OptimiserClass) -> OptimiserClass:
    """The class of an optimiser.

    Args:
        opt: A name in any case, or a class (or partial) that is called with parameters and keywords.

    Raises:
        InputError: If the name is unknown; the message lists the choices.
    """
    if not isinstance(opt, str):
        if not callable(opt):
            raise InputError(f"`opt` must be the name or the class of an optimiser; got {opt!r}")
        return opt
    if opt.lower() not in OPTIMISERS:
        raise InputError(
            f"`opt` must be one of {', '.join(map(repr, OPTIMISERS))}, or a class; "
            f"got {opt!r}{did_you_mean(opt, OPTIMISERS)}"
        )
    return OPTIMISERS[opt.lower()]


def read_opt_args(opt_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of an optimiser with keys in lower case and the defaults filled in.

    Args:
        opt_args: ``opt`` (name or class), ``lr``, and whatever the class takes; ``lr`` is 2e-3 and ``opt`` Adam, or
            AdamW where there is a ``weight_decay``, unless given.

    Raises:
        InputError: If the optimiser is unknown.
    """
    found = {str(key).lower(): value for key, value in (opt_args or {}).items()}
    found.setdefault("lr", DEFAULT_RATE)
    found.setdefault("opt", "adamw" if found.get("weight_decay") else "adam")
    if optimiser_class(found["opt"]) is torch.optim.Adam and found.get("weight_decay"):
        warnings.warn(
            "Adam with `weight_decay` decays weights through the gradient, which its moments rescale; "
            "'adamw' decays them as such",
            UserWarning,
            stacklevel=3,
        )
    return found


def make_optimiser(parameters: Iterable[nn.Parameter], opt_args: Mapping[str, Any]) -> Optimizer:
    """An optimiser of some parameters.

    Args:
        parameters: What it looks after.
        opt_args: As `read_opt_args` gives them.

    Raises:
        InputError: If the class does not take a setting.
    """
    settings = dict(opt_args)
    opt = optimiser_class(settings.pop("opt"))
    try:
        return opt(parameters, **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"`opt_args` do not fit the optimiser {getattr(opt, '__name__', opt)}: {error}") from error
