"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from diffdet.core.checks import check_choice
from diffdet.nn.models.layers.mish import Mish

LookupAct = Callable[[str], Any]
"""Name of an activation -> a layer, or a function, that applies it."""


class Swish(nn.Module):
    """x sigmoid(x).

    Source: P. Ramachandran, B. Zoph, Q. Le, "Searching for activation functions", arXiv:1710.05941, with beta = 1.

    Args:
        inplace: Whether to overwrite the input.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """The activation of every element.

        Args:
            x: Tensor of any shape.

        Returns:
            Tensor of the same shape.
        """
        return nn.functional.silu(x, inplace=self.inplace)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return "inplace=True" if self.inplace else ""


_BY_NAME: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "logsoftmax": lambda: nn.LogSoftmax(1),
    "softmax": lambda: nn.Softmax(1),
    "linear": nn.Identity,
    "swish": Swish,
    "mish": Mish,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": Swish,
}

ACTIVATIONS = tuple(_BY_NAME)
"""Names that `lookup_act` knows."""


def check_act(name: str, act: str) -> None:
    """Refuse what is no name of an activation.

    Args:
        name: Name of the argument, for the message.
        act: Name of an activation; any name that contains ``swish`` is one.

    Raises:
        InputError: If it is unknown; the message lists the choices and names the nearest.
    """
    if not (isinstance(act, str) and "swish" in act):
        check_choice(name, act, ACTIVATIONS)


def lookup_act(act: str) -> nn.Module:
    """The activation of a name.

    Args:
        act: One of `ACTIVATIONS`, or any name that contains ``swish``. ``prelu`` has one learnable slope, 0.25 at
            first; ``softmax`` and ``logsoftmax`` go over axis 1; ``linear`` is the identity.

    Returns:
        A new layer.

    Raises:
        InputError: If the name is unknown; the message lists the choices and names the nearest.
    """
    check_act("act", act)
    return Swish() if "swish" in act else _BY_NAME[act]()
