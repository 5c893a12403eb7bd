"""The activation of Misra."""

from __future__ import annotations

from torch import Tensor, nn


class Mish(nn.Module):
    """x tanh(softplus(x)): smooth, not monotonic, bounded below by -0.31.

    Source: D. Misra, "Mish: a self regularized non-monotonic activation function", arXiv:1908.08681, equation 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The activation of every element.

        Args:
            x: Tensor of any shape.

        Returns:
            Tensor of the same shape.
        """
        return nn.functional.mish(x)
