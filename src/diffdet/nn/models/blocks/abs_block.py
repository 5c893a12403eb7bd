"""The base of heads, bodies and tails.

Freezing happens when a block is complete: the `__init__` of every subclass is wrapped, and after it has run,
`freeze=True` turns off the gradient of all parameters that are there. The outermost `__init__` returns last, so that
this covers all, whichever class of the hierarchy made them. Blocks that users derive get it too, and no `__init__` has
to remember it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init


class AbsBlock(nn.Module, ABC):
    """A part of a network that knows its output size and can be frozen.

    Args:
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        freeze: Whether all parameters start as not trainable. Batch norms still update their running statistics while
            the module is in training mode.

    Attributes:
        lookup_init: As given.
        freeze: As given.
        layers: The layers that ``block[i]`` gives, where a block has such a list.
    """

    layers: Any

    def __init__(self, lookup_init: LookupInit = lookup_normal_init, freeze: bool = False) -> None:
        super().__init__()
        self.lookup_init = lookup_init
        self.freeze = freeze

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        plain_init = cls.__init__
        if getattr(plain_init, "_freezes_when_complete", False):
            return  # inherited, or given to the class by another base that has it

        @functools.wraps(plain_init)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            plain_init(self, *args, **kwargs)
            if self.freeze:
                self.freeze_layers()

        setattr(init, "_freezes_when_complete", True)  # noqa: B010 - functions have no declared attributes
        setattr(cls, "__init__", init)  # noqa: B010 - the type of a class attribute is not assignable

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Pass input through the block.

        Args:
            x: Input of the block.
        """

    @abstractmethod
    def get_out_size(self) -> int:
        """Width of the output."""

    def __getitem__(self, key: int | slice) -> nn.Module:
        return self.layers[key]

    def get_param_count(self, trainable: bool = True) -> int:
        """Number of parameters.

        Args:
            trainable: Whether to count only those that are trained; otherwise all.
        """
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def freeze_layers(self) -> None:
        """Make all parameters untrainable."""
        self.requires_grad_(False)

    def unfreeze_layers(self) -> None:
        """Make all parameters trainable."""
        self.requires_grad_(True)


def check_count(name: str, value: int, *, low: int = 1) -> int:
    """Refuse what is not a whole number of at least `low`.

    Args:
        name: Name of the argument, for the message.
        value: What was given; whole numbers of NumPy are fine.
        low: Smallest allowed.

    Returns:
        The number as an `int`.

    Raises:
        InputError: If it is no whole number or too small.
    """
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or int(value) < low:
        raise InputError(f"`{name}` must be a whole number of at least {low}; got {value!r}")
    return int(value)
