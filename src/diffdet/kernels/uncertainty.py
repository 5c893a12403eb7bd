"""First-order propagation of uncertainties."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.kernels.lines import Lines

__all__ = ["line_covariance", "line_variance", "propagate"]


def line_variance(d_position: Tensor | None, d_slope: Tensor | None, lines: Lines) -> Tensor:
    """Variance of a function of line parameters, summed over the independent projections on axis -2.

    sum_k g_k^T C_k g_k with g_k = (df/dposition_k, df/dslope_k) and C_k the 2 x 2 covariance of line k.

    Differentiable in: everything.

    Args:
        d_position: ``(..., line, muon)`` derivatives by the positions, or None where the function does not depend on
            them.
        d_slope: the same by the slopes.
        lines: ``(line, muon)`` fitted lines.

    Returns:
        ``(..., muon)`` variance in the square of the function's unit.

    Raises:
        InputError: neither derivative is given.
    """
    terms = None
    if d_position is not None:
        terms = d_position.square() * lines.var_position
    if d_slope is not None:
        slopes = d_slope.square() * lines.var_slope
        terms = slopes if terms is None else terms + slopes
    if terms is None:
        raise InputError(
            "derivatives by positions, by slopes or both must be given; got None for `d_position` and `d_slope`"
        )
    if d_position is not None and d_slope is not None:
        terms = terms + 2 * d_position * d_slope * lines.cov
    return terms.sum(-2)


def line_covariance(d_position: Tensor, d_slope: Tensor, lines: Lines) -> Float[Tensor, "out out muon"]:
    """Full covariance matrix of several functions of line parameters.

    Args:
        d_position: ``(out, line, muon)``.
        d_slope: ``(out, line, muon)``.
        lines: ``(line, muon)`` fitted lines.

    Returns:
        ``(out, out, muon)``, symmetric.
    """
    with_position = d_position * lines.var_position + d_slope * lines.cov
    with_slope = d_position * lines.cov + d_slope * lines.var_slope
    return (d_position[:, None] * with_position[None] + d_slope[:, None] * with_slope[None]).sum(-2)


def propagate(
    function: Callable[[Tensor], Tensor], inputs: Tensor, sigma: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Standard deviation of any per-muon function of independent inputs, to first order.

    One vector-Jacobian product per output component, on the sum over muons: since each muon's outputs depend on its own
    inputs only, that is the diagonal of the full Jacobian at the cost of a single one. Memory and time are linear in
    muons.

    Args:
        function: maps ``inputs`` to ``(component, muon)``; must not mix muons.
        inputs: ``(..., muon)``.
        sigma: standard deviations, same shape as ``inputs``.
        create_graph: keep the result differentiable in ``inputs`` and ``sigma``.

    Returns:
        ``(component, muon)`` standard deviations.
    """
    with torch.enable_grad():
        x = inputs if create_graph and inputs.requires_grad else inputs.detach().requires_grad_()
        y = function(x)
        rows = []
        for k in range(y.shape[0]):
            (g,) = torch.autograd.grad(y[k].sum(), x, retain_graph=True, create_graph=create_graph)
            rows.append((g * sigma).square().flatten(0, -2).sum(0).sqrt())
    out = torch.stack(rows)
    return out if create_graph else out.detach()
