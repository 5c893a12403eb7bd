"""Losses of a detector: how far its predictions are from the truth, and what it costs."""

from __future__ import annotations

import logging
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.core.checks import check_finite, check_positive
from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import budget
from diffdet.tomography.optimisation.loss.sub_losses import integer_class_loss
from diffdet.tomography.utils import nearest_class

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = [
    "AbsDetectorLoss",
    "AbsMaterialClassLoss",
    "VolumeClassLoss",
    "VolumeIntClassLoss",
    "VolumeMSELoss",
    "VoxelClassLoss",
    "VoxelX0Loss",
]

_log = logging.getLogger(__name__)


class AbsDetectorLoss(nn.Module, metaclass=ABCMeta):
    """Error of the predictions plus, with a target budget, a penalty on the detector's cost.

    loss = error + cost_coef * penalty(cost), with a penalty that is about 0 well below the budget, 1 at the budget, and
    rises beyond it (see `diffdet.kernels.budget.penalty`).

    To add a loss, inherit and write `_get_inference_loss`. Choose it as near to the final task of the detector as can
    be.

    ``sub_losses`` holds the two parts of the last evaluation, ``"error"`` and ``"cost"``, without their graph.
    ``cost_coef`` is part of the state dict.

    Args:
        target_budget: Budget, unit currency; None leaves the cost out.
        budget_smoothing: How sharply the penalty rises at the budget; smaller is smoother.
        cost_coef: Factor on the penalty, that is the penalty's value at the budget, in the unit of the error. None sets
            it, once, to the error of the first evaluation, and logs the value.
        steep_budget: Whether the penalty goes on rising steeply beyond the budget, or flattens.
        debug: Whether to log cost, parts and coefficient at every evaluation. (Level INFO of the logger of this
            module.)

    Raises:
        InputError: If the budget or the smoothing is not positive, or the coefficient not finite.
    """

    _cost_coef: Tensor | None

    def __init__(
        self,
        *,
        target_budget: float | None,
        budget_smoothing: float = 10,
        cost_coef: Tensor | float | None = None,
        steep_budget: bool = True,
        debug: bool = False,
    ) -> None:
        super().__init__()
        if target_budget is not None:
            check_positive("target_budget", target_budget)
        check_positive("budget_smoothing", budget_smoothing)
        self.target_budget = target_budget
        self.budget_smoothing = budget_smoothing
        self.steep_budget = steep_budget
        self.debug = debug
        self.sub_losses: dict[str, Tensor] = {}
        self.register_buffer("_cost_coef", None)
        self.cost_coef = cost_coef
        self.register_load_state_dict_pre_hook(_adopt_cost_coef)

    @property
    def cost_coef(self) -> Tensor | None:
        """Factor on the penalty, ``()``; None until it is known."""
        return self._cost_coef

    @cost_coef.setter
    def cost_coef(self, value: Tensor | float | None) -> None:
        if value is None:
            self._cost_coef = None
            return
        check_finite("cost_coef", value)
        tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
        if tensor.numel() != 1:
            raise ShapeError(f"`cost_coef` must be one number; got shape {tuple(tensor.shape)}")
        self._cost_coef = tensor.detach().clone().reshape(())

    def forward(self, pred: Tensor, volume: Volume) -> Tensor:
        """Loss of the predictions for the layout that is loaded in a volume, and of the volume's detector.

        Args:
            pred: What the inference says.
            volume: Volume with the layout and the detector.

        Returns:
            ``()`` loss.
        """
        error = self._get_inference_loss(pred, volume)
        if error.numel() != 1:
            raise ShapeError(
                f"`{type(self).__name__}._get_inference_loss` must return one number; got shape {tuple(error.shape)}"
            )
        error = error.reshape(())
        cost = self._get_cost_loss(error, volume)
        self.sub_losses = {"error": error.detach(), "cost": cost.detach()}
        return error + cost

    @abstractmethod
    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        """Error of the predictions.

        Args:
            pred: What the inference says.
            volume: Volume with the layout, and its target if it has one.

        Returns:
            ``()`` error, differentiable in ``pred``.
        """

    def _get_cost_loss(self, error: Tensor, volume: Volume) -> Tensor:
        """The penalty times its coefficient, which is fixed here if it was not."""
        coefficient = self._cost_coef
        if coefficient is None:
            coefficient = error.detach()
            if bool(coefficient.isfinite()):  # otherwise the loss says so itself, and a later evaluation may do better
                self.cost_coef = coefficient
                if self.target_budget is not None:
                    _log.info("cost coefficient set to the error of the first evaluation, %.6g", float(coefficient))
        if self.target_budget is None:
            return torch.zeros_like(error)
        cost = volume.get_cost()
        penalty = self._get_budget_coef(cost).reshape(()).to(error.dtype)
        loss = penalty * coefficient.to(error)
        if self.debug:
            parts = (cost.detach(), self.target_budget, penalty.detach(), coefficient, error.detach(), loss.detach())
            _log.info(
                "cost %.6g of %.6g, penalty %.6g, coefficient %.6g, error %.6g, cost loss %.6g", *map(float, parts)
            )
        return loss

    def _get_budget_coef(self, cost: Tensor) -> Tensor:
        """Penalty of a cost, with the shape of the cost; 0 without a target budget."""
        if self.target_budget is None:
            return torch.zeros_like(cost)
        return budget.penalty(cost, self.target_budget, self.budget_smoothing, steep=self.steep_budget)


def _adopt_cost_coef(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_details: Any) -> None:
    """Before loading: whether a coefficient is set follows the state dict."""
    assert isinstance(module, AbsDetectorLoss)
    stored = state_dict.get(prefix + "_cost_coef")
    module.cost_coef = None if stored is None else stored


def _need_target(volume: Volume) -> Tensor:
    """The target of the loaded layout."""
    target = volume.target
    if target is None:
        raise InputError(
            "`volume` must have a target for this loss: load the layout together with it, "
            "`volume.load_rad_length(layout, target)`"
        )
    return target


def _shaped_as(target: Tensor, pred: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A target with as many elements as needed, in the given shape."""
    if target.numel() != torch.Size(shape).numel():
        raise ShapeError(f"`pred` of shape {tuple(pred.shape)} does not fit a target of shape {tuple(target.shape)}")
    return target.reshape(shape)


class VoxelX0Loss(AbsDetectorLoss):
    """Mean squared error of the radiation length of every voxel, m^2.

    Voxels with a large X0, air above all, dominate it.

    Args:
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        target = volume.get_rad_cube()
        if pred.shape != target.shape:
            raise ShapeError(
                f"`pred` must have the shape of the voxels, {tuple(target.shape)}; got {tuple(pred.shape)}"
            )
        return functional.mse_loss(pred, target.to(pred))


class AbsMaterialClassLoss(AbsDetectorLoss):
    """Base of losses on classes of materials. The truth is given as a radiation length and mapped to the nearest known
    one.

    Args:
        x02id: Class id by radiation length [m].
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def __init__(
        self,
        *,
        x02id: Mapping[float, int],
        target_budget: float | None,
        budget_smoothing: float = 10,
        cost_coef: Tensor | float | None = None,
        steep_budget: bool = True,
        debug: bool = False,
    ) -> None:
        super().__init__(
            target_budget=target_budget,
            budget_smoothing=budget_smoothing,
            cost_coef=cost_coef,
            steep_budget=steep_budget,
            debug=debug,
        )
        if not x02id:
            raise InputError("`x02id` must map at least one radiation length to a class id; got none")
        self.x02id = dict(x02id)

    def _negative_log_likelihood(self, pred: Tensor, x0: Tensor) -> Tensor:
        """NLL of log-probabilities ``(batch, class, ...)`` for true radiation lengths."""
        classes = _shaped_as(nearest_class(x0, self.x02id), pred, (pred.shape[0], *pred.shape[2:]))
        if int(classes.max()) >= pred.shape[1] or int(classes.min()) < 0:
            raise ShapeError(
                f"`pred` must have log-probabilities of the classes {sorted(self.x02id.values())} along axis 1; "
                f"got shape {tuple(pred.shape)}"
            )
        return functional.nll_loss(pred, classes)


class VoxelClassLoss(AbsMaterialClassLoss):
    """Negative log-likelihood of the material of every voxel.

    Predictions are log-probabilities ``(1, class, voxel)``, voxels in the order of ``volume.get_rad_cube().flatten()``.

    Args:
        x02id: See `AbsMaterialClassLoss`.
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        if pred.ndim != 3 or pred.shape[0] != 1:
            raise ShapeError(f"`pred` must have shape (1, class, voxel); got {tuple(pred.shape)}")
        return self._negative_log_likelihood(pred, volume.get_rad_cube())


class VolumeClassLoss(AbsMaterialClassLoss):
    """Classification of the volume as a whole, for example by the material of a block in it.

    The target of the volume is a radiation length. With several classes predictions are log-probabilities ``(1,
    class)`` and the error is their negative log-likelihood; with one, ``(1, 1)``, it is the probability of class 1 and
    the error the binary cross-entropy. Further axes behind are predictions of as many targets.

    Args:
        x02id: See `AbsMaterialClassLoss`.
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        target = _need_target(volume)
        if pred.ndim < 2:
            raise ShapeError(f"`pred` must have shape (1, class, ...); got {tuple(pred.shape)}")
        if pred.shape[1] > 1:
            return self._negative_log_likelihood(pred, target)
        classes = _shaped_as(nearest_class(target, self.x02id), pred, tuple(pred.shape))
        return functional.binary_cross_entropy(pred, classes.to(pred))


class VolumeIntClassLoss(AbsDetectorLoss):
    """Classification of the volume as a whole by an integer that is a quantity, such as a number of filled layers.

    The error is `integer_class_loss` of predicted probabilities ``(..., integer)``.

    Args:
        targ2int: Called with the target and the volume, gives the true integer.
        pred_int_start: Integer that the first probability stands for.
        use_mse: Whether distances between integers are squared.
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def __init__(
        self,
        *,
        targ2int: Callable[[Tensor, Volume], Tensor],
        pred_int_start: int,
        use_mse: bool,
        target_budget: float | None,
        budget_smoothing: float = 10,
        cost_coef: Tensor | float | None = None,
        steep_budget: bool = True,
        debug: bool = False,
    ) -> None:
        super().__init__(
            target_budget=target_budget,
            budget_smoothing=budget_smoothing,
            cost_coef=cost_coef,
            steep_budget=steep_budget,
            debug=debug,
        )
        self.targ2int = targ2int
        self.pred_int_start = pred_int_start
        self.use_mse = use_mse

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        target = torch.as_tensor(self.targ2int(_need_target(volume), volume), device=pred.device)
        return integer_class_loss(pred, target, self.pred_int_start, self.use_mse)


class VolumeMSELoss(AbsDetectorLoss):
    """Mean squared error of a prediction of the volume's target, in the square of the target's unit.

    Args:
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        return functional.mse_loss(pred, _shaped_as(_need_target(volume), pred, tuple(pred.shape)).to(pred))
