"""Parts that losses are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.checks import check_choice
from diffdet.core.errors import ShapeError
from diffdet.kernels.safe_math import safe_divide

__all__ = ["integer_class_loss"]


def integer_class_loss(
    int_probs: Tensor,
    target_int: Tensor,
    pred_start_int: int,
    use_mse: bool,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Loss for classes that are numbers: being off by one costs less than being off by five.

    L = sum_k p_k d_k / sum_k d_k, with d_k = |t - k| or (t - k)^2 the distance of integer k from the target. It is 0
    where all probability is on the target, and lies in [0, 1].

    Use it where the quantity is predicted as probabilities and its order matters. Where integers are mere labels, use a
    cross-entropy; where a number is predicted directly, a squared error.

    Differentiable in: int_probs, weight.

    Args:
        int_probs: ``(*batch, integer)`` predicted probabilities.
        target_int: ``(*batch)`` true integers.
        pred_start_int: Integer that the first probability stands for.
        use_mse: Whether distances are squared.
        weight: ``(*batch)`` factors on the losses; None for 1.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"``.

    Returns:
        ``()``, or ``(*batch)`` without reduction.

    Raises:
        InputError: If the reduction is not known.
        ShapeError: If targets or weights do not fit the predictions.
    """
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    batch = int_probs.shape[:-1]
    target = _fit("target_int", target_int, batch).to(int_probs.dtype)
    integers = torch.arange(int_probs.shape[-1], dtype=int_probs.dtype, device=int_probs.device) + pred_start_int
    distance = (target.unsqueeze(-1) - integers).abs()
    if use_mse:
        distance = distance.square()
    # With a single integer that is the target there is nothing to be wrong about: the sum of distances is 0, and so is
    # the loss.
    loss = (safe_divide(distance, distance.sum(-1, keepdim=True)) * int_probs).sum(-1)
    if weight is not None:
        loss = loss * _fit("weight", weight, batch)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _fit(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """A tensor with one element per prediction in the shape of the predictions."""
    if tensor.numel() != shape.numel():
        raise ShapeError(
            f"`{name}` must have one element per prediction, shape {tuple(shape)}; got shape {tuple(tensor.shape)}"
        )
    return tensor.reshape(shape)
