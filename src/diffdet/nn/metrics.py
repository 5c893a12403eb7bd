"""Metrics of the validation data, one value per epoch, by which a fit can be judged."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError
from diffdet.kernels.classifier_scores import area_under_roc, share_of_correct
from diffdet.nn.callbacks.callback import Callback

__all__ = ["BinaryAccuracy", "EvalMetric", "RegPull", "RocAucScore"]


class EvalMetric(Callback):
    """Base class of metrics. Inherit, and write `evaluate`.

    Predictions, targets and weights of the validation fold are collected; the value is computed when it is first asked
    for in an epoch, so metrics may stand before or after the callbacks that read them.

    Args:
        name: Name of the metric; that of the class where None.
        lower_metric_better: Whether a lower value is better.
        main_metric: Whether a fit is judged by it. A fit has one: where several are marked, the first one stays.

    Attributes:
        preds: Predictions of the validation data, (sample, ...): probabilities, also for multiclass models.
        targets: True values.
        weights: Weights, (sample,); 1 where there are none.
    """

    saved = ("metric", "_values")
    transient = ("preds", "targets", "weights", "_parts")

    def __init__(self, name: str | None = None, lower_metric_better: bool = True, main_metric: bool = True) -> None:
        self.name = type(self).__name__ if name is None else name
        self.lower_metric_better = lower_metric_better
        self.main_metric = main_metric
        self.metric: float | None = None
        self._values: list[float] = []
        self._parts: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.preds = self.targets = self.weights = torch.empty(0)

    @property
    def sign(self) -> float:
        """1 where a lower value is better, else -1."""
        return 1.0 if self.lower_metric_better else -1.0

    @abstractmethod
    def evaluate(self) -> float:
        """Value of the metric from `preds`, `targets` and `weights`."""

    def score(self) -> float:
        """What a fit is judged by: lower is better."""
        return self.sign * self.get_metric()

    def get_metric(self) -> float:
        """Value for the last validation.

        Raises:
            InputError: If there was none.
        """
        if self.metric is None:
            if not self._parts:
                raise InputError(f"`{self.name}` has no value: it needs a fit with `val_idx`")
            self.preds = torch.cat([pred for pred, _, _ in self._parts])
            self.targets = torch.cat([target for _, target, _ in self._parts])
            self.weights = torch.cat(
                [
                    torch.ones(len(pred), dtype=pred.dtype, device=pred.device) if w is None else w.reshape(-1)
                    for pred, _, w in self._parts
                ]
            )
            if "multiclass" in (self._model.objective or "").lower() and self.preds.ndim > 1 and self._model.n_out > 1:
                self.preds = self.preds.exp()
            self.metric = self.evaluate()
            self.preds = self.targets = self.weights = torch.empty(0)
        return self.metric

    # ------------------------------------------------------------------------------------------------------------ hooks
    def on_train_begin(self) -> None:
        """See to it that there is one main metric."""
        super().on_train_begin()
        self.metric, self._values, self._parts = None, [], []
        if self.main_metric:
            for other in self._fit.metric_cbs or ():
                if other is not self:
                    other.main_metric = False

    def on_epoch_begin(self) -> None:
        """Begin to collect."""
        if self._fit.state == "valid":
            self.metric, self._parts = None, []

    def on_forwards_end(self) -> None:
        """Collect a batch of the validation data."""
        fit = self._fit
        if fit.state == "valid" and fit.y_pred is not None and fit.y is not None:
            self._parts.append((fit.y_pred.detach(), fit.y, fit.w))

    def on_epoch_end(self) -> None:
        """Compute the value, so that it is in the history of the fit, and let go of the data."""
        fit = self._fit
        if fit.state == "valid":
            fit.metrics[self.name] = self.get_metric()
            self._values.append(fit.metrics[self.name])
            self._parts = []


class RocAucScore(EvalMetric):
    """Area under the ROC curve, with event weights; the mean over classes, each against the rest, for several.

    Args:
        main_metric: Whether a fit is judged by it.
        name: Name of the metric.
    """

    def __init__(self, main_metric: bool = True, name: str | None = None) -> None:
        super().__init__(name, lower_metric_better=False, main_metric=main_metric)

    def evaluate(self) -> float:
        """The area."""
        n_out = 1 if self.preds.ndim == 1 else self.preds.shape[1]
        preds, targets = self.preds.reshape(len(self.preds), n_out), self.targets
        if n_out == 1:
            return area_under_roc(preds[:, 0], targets.reshape(-1) > 0.5, self.weights).item()
        if targets.ndim > 1 and targets.shape[1] == n_out:
            signals = [targets[:, k] > 0.5 for k in range(n_out)]
        else:
            signals = [targets.reshape(-1) == k for k in range(n_out)]
        areas = [area_under_roc(preds[:, k], signal, self.weights) for k, signal in enumerate(signals)]
        return torch.stack(areas).mean().item()


class BinaryAccuracy(EvalMetric):
    """Share of the events, by weight, that are on the right side of a threshold.

    Args:
        threshold: Predictions from here on are signal, 0 to 1.
        main_metric: Whether a fit is judged by it.
        name: Name of the metric.

    Raises:
        InputError: If the threshold is not from 0 to 1.
    """

    def __init__(self, threshold: float = 0.5, main_metric: bool = True, name: str | None = None) -> None:
        check_in_range("threshold", threshold, 0.0, 1.0)
        super().__init__(name, lower_metric_better=False, main_metric=main_metric)
        self.threshold = threshold

    def evaluate(self) -> float:
        """The share."""
        preds, targets = self.preds.reshape(len(self.preds), -1), self.targets.reshape(len(self.targets), -1)
        right = (preds >= self.threshold) == (targets > 0.5)
        weights = self.weights.unsqueeze(1).expand_as(preds)
        return share_of_correct(right.reshape(-1), weights.reshape(-1)).item()


class RegPull(EvalMetric):
    """Mean or width of the errors of a regression, weighted by event.

    The error is ``(prediction - target) / target`` with ``use_pull``, else ``prediction - target``. A mean is judged by
    its size: a bias of -1 is no better than one of +1. (The original took the lowest signed mean for the best.)

    Args:
        return_mean: Whether the metric is the mean; else the standard deviation.
        use_pull: Whether errors are relative to the target.
        main_metric: Whether a fit is judged by it.
        name: Name of the metric.
    """

    def __init__(
        self, return_mean: bool, use_pull: bool = True, main_metric: bool = True, name: str | None = None
    ) -> None:
        super().__init__(name, lower_metric_better=True, main_metric=main_metric)
        self.return_mean = return_mean
        self.use_pull = use_pull

    def evaluate(self) -> float:
        """Mean or standard deviation."""
        targets = self.targets.reshape(self.preds.shape)
        errors = self.preds - targets
        errors = (errors / targets if self.use_pull else errors).reshape(len(errors), -1)
        weights = (self.weights / self.weights.sum()).unsqueeze(1) / errors.shape[1]
        mean = (weights * errors).sum()
        return mean.item() if self.return_mean else (weights * (errors - mean).square()).sum().sqrt().item()

    def score(self) -> float:
        """Size of the mean, or the width."""
        return abs(self.get_metric())
