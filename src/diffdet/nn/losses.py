"""Losses in which every event counts with its own weight.

A loss is an `nn.Module` called with predictions and targets. While a model is fitted, the weights of the batch are put
on its attribute ``weights``; the loss is then ``mean_i(w_i e_i)`` over the samples, with the error ``e_i`` of a sample
from `diffdet.kernels.sample_losses`.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Final

from torch import Tensor, nn

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import sample_losses

__all__ = [
    "LOSSES",
    "AbsWeightedLoss",
    "WeightedBCE",
    "WeightedCCE",
    "WeightedFractionalMSE",
    "WeightedMAE",
    "WeightedMSE",
    "loss_of",
]


class AbsWeightedLoss(nn.Module, metaclass=ABCMeta):
    """Base class of losses with a weight per sample. Inherit and write `errors`.

    The original fixed the reduction to a mean at construction, so that weights set later only scaled the loss by their
    mean; here every sample counts with its own.

    Args:
        weights: Weights to begin with, (sample,) or (sample, 1); None for 1 each.

    Attributes:
        weights: Weights of the next batch; a fit sets them before every call.
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | None = None) -> None:
        super().__init__()
        self.weights = weights

    @abstractmethod
    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Error of every sample.

        Args:
            pred: Predictions, (sample, ...).
            target: True values.

        Returns:
            Errors, (sample,).
        """

    def prepare(self, pred: Tensor, target: Tensor) -> Tensor:
        """The target in the form that `errors` wants.

        Raises:
            ShapeError: If predictions and targets have different shapes: broadcasting would compare every event with
                every other.
        """
        if target.shape != pred.shape:
            raise ShapeError(
                f"`target` must have the shape of the predictions {tuple(pred.shape)}; got {tuple(target.shape)}"
            )
        return target.to(pred.dtype)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            pred: Predictions, (sample, ...).
            target: True values.

        Returns:
            Single number.

        Raises:
            ShapeError: If shapes do not fit.
        """
        errors = self.errors(pred, self.prepare(pred, target))
        weights = self.weights
        if weights is not None:
            if weights.numel() != errors.numel():
                raise ShapeError(
                    f"`weights` must hold one number for each of the {errors.numel()} samples; got shape "
                    f"{tuple(weights.shape)}"
                )
            weights = weights.reshape(-1).to(errors)
        return sample_losses.weighted_mean(errors, weights)

    def extra_repr(self) -> str:
        """Nothing: weights come and go with batches."""
        return ""


class WeightedMSE(AbsWeightedLoss):
    """Mean squared error with a weight per sample: ``mean_i(w_i (p_i - t_i)^2)``."""

    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Squared errors."""
        return sample_losses.squared_errors(pred, target)


class WeightedMAE(AbsWeightedLoss):
    """Mean absolute error with a weight per sample: ``mean_i(w_i |p_i - t_i|)``."""

    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Absolute errors."""
        return sample_losses.absolute_errors(pred, target)


class WeightedFractionalMSE(AbsWeightedLoss):
    """Squared error over the size of the target, with a weight per sample: ``mean_i(w_i (p_i - t_i)^2 / |t_i|)``.

    Args:
        weights: See `AbsWeightedLoss`.
        floor: Smallest size of a target to divide by, in units of the target, so that targets near zero do not swamp
            the rest.

    Raises:
        InputError: If `floor` is not positive.
    """

    def __init__(self, weights: Tensor | None = None, *, floor: float = 1e-6) -> None:
        check_positive("floor", floor)
        super().__init__(weights)
        self.floor = floor

    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Squared errors over sizes."""
        return sample_losses.fractional_squared_errors(pred, target, self.floor)


class WeightedCCE(AbsWeightedLoss):
    """Categorical cross-entropy with a weight per sample: ``-mean_i(w_i log p_i(t_i))``.

    Predictions are log-probabilities, as the tail of multiclass models gives, or plain scores: they are normalised
    here, which leaves log-probabilities as they are. Targets are class numbers, (sample,) or (sample, 1).
    """

    def prepare(self, pred: Tensor, target: Tensor) -> Tensor:
        """Class numbers as integers, without the last axis of length 1.

        Raises:
            ShapeError: If there is not one class number for each prediction.
        """
        wanted = (pred.shape[0], *pred.shape[2:])
        if target.ndim == pred.ndim and target.shape[-1] == 1 and tuple(target.shape) != wanted:
            target = target.squeeze(-1)
        if tuple(target.shape) != wanted:
            raise ShapeError(
                f"`target` must hold one class number for each prediction, shape {wanted}; got {tuple(target.shape)}"
            )
        return target.long()

    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Negative log-probabilities of the true classes."""
        return sample_losses.cross_entropies(pred, target)


class WeightedBCE(AbsWeightedLoss):
    """Binary cross-entropy of probabilities with a weight per sample; several outputs are several labels."""

    def errors(self, pred: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropies."""
        return sample_losses.binary_cross_entropies(pred, target)


LOSSES: Final[dict[str, type[nn.Module]]] = {
    "mse": WeightedMSE,
    "mae": WeightedMAE,
    "cce": WeightedCCE,
    "bce": WeightedBCE,
    "fractional_mse": WeightedFractionalMSE,
}
"""Losses that can be asked for by name."""


def loss_of(objective: str, n_out: int) -> type[nn.Module]:
    """The loss that goes with an objective.

    Args:
        objective: ``"classification"``, ``"multiclass"`` or ``"regression"``, or a name that contains one of them.
        n_out: Number of outputs.

    Returns:
        Class of the loss: weighted cross-entropy of classes for several outputs of a multiclass objective, binary
        cross-entropy for other classifications, weighted squared error for regression.

    Raises:
        InputError: If the objective is none of these.
    """
    name = objective.lower()
    if "class" in name:
        return WeightedCCE if "multiclass" in name and n_out > 1 else nn.BCELoss
    if "regress" in name:
        return WeightedMSE
    raise InputError(
        f"`objective` must be 'classification', 'multiclass' or 'regression', or contain one; got {objective!r}"
    )
