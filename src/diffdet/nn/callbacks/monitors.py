"""Callbacks that follow losses and metrics of a fit, keep the best model, and end a fit that no longer improves."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdet.core import storage
from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.training import distributed

if TYPE_CHECKING:
    from diffdet.nn.metrics import EvalMetric
    from diffdet.nn.training.fit_params import FitParams

__all__ = ["EarlyStopping", "EpochSaver", "MetricLogger", "SaveBest"]

_log = logging.getLogger(__name__)


class MetricLogger(Callback):
    """Follows training and validation losses of a fit, validation losses of weight averages, and metrics.

    Args:
        show_plots: Whether to print one line at the end of every epoch, as a terminal shows it.

    Attributes:
        loss_vals: ``"Training"`` and ``"Validation"``, one value per epoch, and one list for each callback that has a
            validation loss of its own.
        metric_vals: Values of each metric, per epoch, by name.
        best_loss: Lowest validation loss, or training loss where there is no validation.
        val_epoch_results: Loss of the last epoch and, where there is one, the main metric.
    """

    saved = ("loss_vals", "metric_vals", "best_loss", "val_epoch_results", "_main_scores")

    def __init__(self, show_plots: bool = False) -> None:
        self.show_plots = show_plots
        self._reset()

    def _reset(self) -> None:
        self.loss_vals: dict[str, list[float]] = {"Training": [], "Validation": []}
        self.metric_vals: dict[str, list[float]] = {}
        self.best_loss = math.inf
        self.val_epoch_results: tuple[float, float | None] | None = None
        self._main_scores: list[float] = []

    def on_train_begin(self) -> None:
        """Begin a new history."""
        super().on_train_begin()
        self._reset()

    def on_epoch_end(self) -> None:
        """Note loss and metrics of a phase."""
        fit = self._fit
        training = fit.state == "train"
        loss = fit.metrics.get("loss", math.nan)
        self.loss_vals["Training" if training else "Validation"].append(loss)
        if training and fit.val_idx is not None:
            return
        losses = [loss]
        if not training:
            for callback in fit.loss_cbs or ():
                own = callback.get_loss()
                self.loss_vals.setdefault(type(callback).__name__, []).append(own)
                losses.append(own)
            for metric in fit.metric_cbs or ():
                self.metric_vals.setdefault(metric.name, []).append(metric.get_metric())
        self.best_loss = min([self.best_loss, *(value for value in losses if not math.isnan(value))])
        main = main_metric(fit)
        self.val_epoch_results = (loss, None if main is None else main.get_metric())
        if main is not None:
            self._main_scores.append(main.score())
        if self.show_plots and distributed.is_writer():
            self._tell(fit)

    def _tell(self, fit: FitParams) -> None:
        values = {name: column[-1] for name, column in (self.loss_vals | self.metric_vals).items() if column}
        _log.info("epoch %d/%s: %s", fit.epoch, fit.n_epochs, "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def get_loss_history(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Losses, and metrics, of all epochs."""
        losses = {name: list(values) for name, values in self.loss_vals.items() if values}
        return losses, {name: list(values) for name, values in self.metric_vals.items()}

    def get_results(self, save_best: bool = True) -> dict[str, float]:
        """What the fit ended with.

        Args:
            save_best: Whether the best model is kept, so that the best loss and the metrics of that epoch count; else
                those of the last epoch.

        Returns:
            ``"loss"`` and one value for each metric.
        """
        column = self.loss_vals["Validation"] or self.loss_vals["Training"]
        if not column:
            return {}
        epoch = len(column) - 1
        if save_best:
            scores = self._main_scores or column
            epoch = min(range(len(scores)), key=lambda k: math.inf if math.isnan(scores[k]) else scores[k])
        loss = column[epoch]
        if save_best and not self._main_scores:
            loss = min(loss, self.best_loss)
        return {"loss": loss, **{name: values[epoch] for name, values in self.metric_vals.items()}}

    def plot(self) -> Any:
        """A picture of the history.

        Returns:
            The figure: losses above, metrics below where there are any.
        """
        from matplotlib.figure import Figure

        losses, metrics = self.get_loss_history()
        figure = Figure(figsize=(8, 4.5 * (2 if metrics else 1)), layout="constrained")
        for place, (columns, label) in enumerate([(losses, "loss"), (metrics, "metric")][: 2 if metrics else 1]):
            axes = figure.add_subplot(2 if metrics else 1, 1, place + 1)
            for name, values in columns.items():
                axes.plot(range(1, len(values) + 1), values, label=name)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.legend()
        return figure


def main_metric(fit: FitParams) -> EvalMetric | None:
    """The metric that decides what is best; None where the loss does."""
    return next((metric for metric in fit.metric_cbs or () if metric.main_metric), None)


def _scores(fit: FitParams) -> Mapping[Any, float]:
    """What the epoch is judged by, lower is better: the main metric, or the loss and those of weight averages."""
    main = main_metric(fit)
    if main is not None:
        return {None: main.score()}
    losses: dict[Any, float] = {None: fit.metrics["loss"]}
    return losses | {callback: callback.get_loss() for callback in fit.loss_cbs or ()}


def _judged(fit: FitParams) -> bool:
    """Whether the phase that ends is the one that an epoch is judged by."""
    return fit.state == ("train" if fit.val_idx is None else "valid") and "loss" in fit.metrics


class SaveBest(Callback):
    """Saves the model whenever the main metric, or without one the loss, is the best so far; reloads it at the end.

    Where a callback averages weights, the average is saved if its loss is the best.

    Args:
        auto_reload: Whether to load the best model when the fit ends.
        name: Name of the file in the fit's ``cb_savepath``.

    Attributes:
        min_loss: Best value so far; negative where the metric is better if higher.
    """

    saved = ("min_loss",)

    def __init__(self, auto_reload: bool = True, name: str = "best.h5") -> None:
        self.auto_reload = auto_reload
        self.name = name
        self.min_loss = math.inf

    @property
    def path(self) -> Path:
        """Where the best model is saved."""
        return Path("." if self._fit.cb_savepath is None else self._fit.cb_savepath) / self.name

    def on_train_begin(self) -> None:
        """Forget the best of the fit before."""
        super().on_train_begin()
        self.min_loss = math.inf

    def on_epoch_end(self) -> None:
        """Save, if the epoch was the best."""
        fit = self._fit
        if not _judged(fit):
            return
        for source, score in _scores(fit).items():
            if score < self.min_loss:
                self.min_loss = score
                if distributed.is_writer():
                    storage.make_folder(self.path.parent)
                    self._model.save(self.path, weights=None if source is None else source.get_weights())

    def on_train_end(self) -> None:
        """Load the best model."""
        if self.auto_reload and math.isfinite(self.min_loss):
            distributed.wait()
            self._model.load(self.path)


class EarlyStopping(Callback):
    """Ends a fit whose main metric, or without one whose loss, has not become better for a while.

    Where cyclic callbacks run, cycles count instead of epochs: only epochs in which a cycle ended are judged as waits.

    Args:
        patience: How many epochs, or cycles, without a new best to wait for.
        min_change: By how much a new best must be better.

    Raises:
        InputError: If `patience` is below 1 or `min_change` below 0.
    """

    saved = ("best", "n_waited")

    def __init__(self, patience: int, min_change: float = 0.0) -> None:
        if patience < 1:
            raise InputError(f"`patience` must be at least 1; got {patience}")
        check_in_range("min_change", min_change, 0.0)
        self.patience = patience
        self.min_change = min_change
        self.best = math.inf
        self.n_waited = 0

    def on_train_begin(self) -> None:
        """Begin to wait."""
        super().on_train_begin()
        self.best, self.n_waited = math.inf, 0

    def on_epoch_end(self) -> None:
        """Count an epoch or a cycle."""
        fit = self._fit
        if not _judged(fit):
            return
        score = min((value for value in _scores(fit).values() if not math.isnan(value)), default=math.nan)
        if score < self.best - self.min_change:
            self.best, self.n_waited = score, 0
            return
        cyclic = fit.cyclic_cbs or ()
        if cyclic and not any(callback.cycle_end for callback in cyclic):
            return
        self.n_waited += 1
        if self.n_waited >= self.patience:
            unit = "cycles" if cyclic else "epochs"
            fit.stop = True
            fit.stop_reason = f"no improvement on {self.best:.6g} for {self.n_waited} {unit}"


class EpochSaver(Callback):
    """Saves the model at the end of every epoch of training, each epoch to a file of its own: ``epoch_{number}.h5``."""

    def on_epoch_end(self) -> None:
        """Save, if it was an epoch of training."""
        fit = self._fit
        if fit.state == "train" and distributed.is_writer():
            folder = storage.make_folder(Path("." if fit.cb_savepath is None else fit.cb_savepath))
            self._model.save(folder / f"epoch_{fit.epoch}.h5")
