"""A network of head, body and tail."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError

__all__ = ["PARTS", "HeadBodyTail", "count_parameters"]

PARTS = ("head", "body", "tail")
"""Names of the parts, in their order."""


class HeadBodyTail(nn.Sequential):
    """Head, body and tail, one after the other; keys of the state are ``0.``, ``1.`` and ``2.``.

    Args:
        head: From inputs to columns.
        body: From columns to columns.
        tail: From columns to predictions.
    """

    def __init__(self, head: nn.Module, body: nn.Module, tail: nn.Module) -> None:
        super().__init__(head, body, tail)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - nn.Sequential calls x `input`
        self, x: Tensor | tuple[Tensor, Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Predictions.

        Args:
            x: What the head takes: flat features (batch, feature), a matrix, or both as a tuple.
            mask: Which objects exist, (batch, object); all where None. Needs a head that knows objects.

        Returns:
            (batch, n_out).
        """
        head, body, tail = self
        return tail(body(head(x) if mask is None else head(x, mask=mask)))

    def part(self, key: int | str) -> Any:
        """Head, body or tail by number or name.

        Raises:
            InputError: If there is no such part.
        """
        if isinstance(key, str):
            if key not in PARTS:
                raise InputError(f"the parts of a model are {', '.join(PARTS)}; got {key!r}{did_you_mean(key, PARTS)}")
            return self[PARTS.index(key)]
        if not -3 <= key < 3:
            raise InputError(f"a model has the parts 0, 1 and 2; got {key}")
        return self[key]


def count_parameters(net: nn.Module, trainable: bool = True) -> int:
    """Number of parameters of a network.

    Args:
        net: The network.
        trainable: Whether to count only those that require gradients.
    """
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not trainable)
