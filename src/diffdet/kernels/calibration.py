"""From a statistic to a probability that may be taken at its word."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["fit_log_odds"]

_MAX_STEPS = 100
_TOLERANCE = 1e-10


def fit_log_odds(with_: Float[Tensor, " value"], without: Float[Tensor, " other"]) -> tuple[float, float]:
    """Slope and offset that make log-odds of a statistic, by logistic regression.

    The likelihood of ``sigmoid(slope * statistic + offset)`` is maximised by Newton's method. What it is fitted to are
    not 1 and 0 but (n + 1) / (n + 2) and 1 / (m + 2), so that two kinds that do not overlap leave the slope finite. A
    statistic that orders the two kinds the wrong way gets slope 0: it is taken to say nothing, not the opposite.

    Args:
        with_: the statistic where the answer is yes, one value at least.
        without: the statistic where the answer is no, likewise.

    Returns:
        Slope (0 or more) and offset.

    Reference: J. Platt, in Advances in Large Margin Classifiers, MIT Press (2000) 61, section 2.
    """
    values = torch.cat([with_, without]).to(torch.float64)
    n, m = len(with_), len(without)
    targets = values.new_tensor([(n + 1) / (n + 2)] * n + [1 / (m + 2)] * m)
    even = float((targets.mean() / (1 - targets.mean())).log())
    centre, width = values.mean(), values.std(correction=0)
    if not float(width) > 0:
        return 0.0, even
    scaled = (values - centre) / width
    columns = torch.stack([scaled, torch.ones_like(scaled)])
    found = values.new_tensor([0.0, even])
    loss = _loss(found, columns, targets)
    for _ in range(_MAX_STEPS):
        probability = torch.sigmoid(found @ columns)
        slope = columns @ (probability - targets)
        curvature = (columns * (probability * (1 - probability))) @ columns.mT
        step = torch.linalg.solve(curvature + 1e-12 * torch.eye(2, dtype=values.dtype), slope)
        new = _loss(found - step, columns, targets)
        # the loss is convex: half a step, or a quarter, always goes down
        while float(new) > float(loss) and float(step.abs().max()) > _TOLERANCE:
            step = step / 2
            new = _loss(found - step, columns, targets)
        found, loss = found - step, new
        if float(step.abs().max()) < _TOLERANCE:
            break
    if float(found[0]) <= 0:
        return 0.0, even
    return float(found[0] / width), float(found[1] - found[0] * centre / width)


def _loss(found: Tensor, columns: Tensor, targets: Tensor) -> Tensor:
    """Minus the logarithm of the likelihood."""
    log_odds = found @ columns
    return (torch.nn.functional.softplus(log_odds) - targets * log_odds).sum()
