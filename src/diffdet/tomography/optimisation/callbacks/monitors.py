"""Callbacks that follow losses and metrics of a fit."""

from __future__ import annotations

import io
import math
import sys
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from diffdet.core import storage
from diffdet.core.checks import check_positive
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MetricLogger", "PanelMetricLogger"]


class MetricLogger(Callback):
    """Follows training and validation losses, their parts, and the metrics of a fit.

    At the end of every epoch it prints one line, or, with ``show_plots``, draws the history anew. The whole history is
    at hand by `get_loss_history`.

    Args:
        gif_filename: Name of an animation of the plots, written to the fit's ``cb_savepath`` when it ends; None for
            none. Made only with ``show_plots``.
        gif_length: Length of the animation, s.
        show_plots: Whether to draw, in a notebook live, instead of printing.

    Attributes:
        loss_vals: ``"Training"``: one value per update; ``"Validation"``: one per epoch. A batch of volumes without any
            prediction counts as infinite.
        sub_losses: Share of each part of the loss in the validation loss, per epoch.
        metric_vals: Values of each metric, per epoch.
        best_loss: Lowest validation loss.
        val_epoch_results: Validation loss and main metric of the last epoch; the metric is negated if higher is better.

    Raises:
        InputError: If ``gif_length`` is not positive.
    """

    cat_palette = "tab10"
    h_mid = 8
    w_mid = 8 * 16 / 9
    lbl_col = "black"
    lbl_sz = 24
    leg_sz = 16
    tk_col = "black"
    tk_sz = 16
    style: ClassVar[dict[str, Any]] = {"style": "whitegrid", "rc": {"patch.edgecolor": "none"}}

    saved = (
        "loss_vals",
        "sub_losses",
        "metric_vals",
        "best_loss",
        "val_epoch_results",
        "_epoch_losses",
        "_epoch_parts",
        "_n_volumes",
    )
    transient = ("_metrics", "_frames", "_figure", "_display")

    def __init__(
        self,
        gif_filename: str | None = "optimisation_history.gif",
        gif_length: float = 10.0,
        show_plots: bool = False,
    ) -> None:
        check_positive("gif_length", gif_length)
        self.gif_filename = gif_filename
        self.gif_length = gif_length
        self.show_plots = show_plots
        self._reset()

    def _reset(self) -> None:
        self.loss_vals: dict[str, list[float]] = {"Training": [], "Validation": []}
        self.sub_losses: dict[str, list[float]] = {}
        self.metric_vals: list[list[float]] = []
        self.best_loss = math.inf
        self.val_epoch_results: tuple[float, float | None] | None = None
        self._epoch_losses: list[float] = []
        self._epoch_parts: dict[str, float] = {}
        self._n_volumes = 0
        self._metrics: list[EvalMetric] = []
        self._frames: list[bytes] = []
        self._figure: Figure | None = None
        self._display: Any = None

    # ------------------------------------------------------------------------------------------------------------ hooks
    def on_train_begin(self) -> None:
        """Begin a new history."""
        super().on_train_begin()
        self._reset()
        self._metrics = list(self._fit.metric_cbs or ())
        self.metric_vals = [[] for _ in self._metrics]

    def on_epoch_begin(self) -> None:
        """Begin the sums of an epoch; before training, take a picture for the animation."""
        self._epoch_losses, self._epoch_parts, self._n_volumes = [], {}, 0
        if self._fit.state == "train":
            self._snapshot()

    def on_backwards_end(self) -> None:
        """Note the training loss of a batch of volumes."""
        fit = self._fit
        if fit.state == "train" and fit.mean_loss is not None:
            self.loss_vals["Training"].append(_number(fit.mean_loss))

    def on_volume_end(self) -> None:
        """Note the parts of the validation loss of a volume."""
        fit = self._fit
        if fit.state != "valid":
            return
        self._n_volumes += 1
        if fit.pred is not None:
            for name, part in getattr(self._wrapper.loss_func, "sub_losses", {}).items():
                self._epoch_parts[name] = self._epoch_parts.get(name, 0.0) + _number(part)

    def on_volume_batch_end(self) -> None:
        """Note the validation loss of a batch of volumes, or that a batch of training has none."""
        fit = self._fit
        loss = math.inf if fit.mean_loss is None else _number(fit.mean_loss)
        if fit.state == "valid":
            self._epoch_losses.append(loss)
        elif fit.mean_loss is None:
            self.loss_vals["Training"].append(loss)

    def on_epoch_end(self) -> None:
        """Finish an epoch: note validation and metrics, then print or draw."""
        fit = self._fit
        if fit.state == "train" and fit.val_passives is not None:
            return
        if fit.state == "valid":
            self._finish_validation()
        if self.show_plots:
            self.update_plot()
        else:
            self.print_losses()

    def _finish_validation(self) -> None:
        loss = sum(self._epoch_losses) / max(1, len(self._epoch_losses))
        self.loss_vals["Validation"].append(loss)
        self.best_loss = min(self.best_loss, loss)
        for name, total in self._epoch_parts.items():
            share = total / (loss * self._n_volumes) if loss and math.isfinite(loss) else math.nan
            self.sub_losses.setdefault(name, []).append(share)
        main: float | None = None
        for metric, values in zip(self._metrics, self.metric_vals, strict=True):
            value = metric.get_metric()
            values.append(math.nan if value is None else float(value))
            if metric.main_metric:
                main = values[-1] if metric.lower_metric_better else -values[-1]
        self.val_epoch_results = loss, main

    def on_train_end(self) -> None:
        """Write the animation."""
        self._snapshot()
        if self._frames and self.gif_filename is not None:
            from diffdet.tomography.plotting.animation import animated_gif

            folder = storage.make_folder(Path("." if self._fit.cb_savepath is None else self._fit.cb_savepath))
            storage.write_bytes(folder / self.gif_filename, animated_gif(self._frames, self.gif_length))
        self._frames = []

    def release(self) -> None:
        """Close the figure."""
        if self._figure is not None:
            import matplotlib.pyplot as plt

            plt.close(self._figure)
            self._figure = self._display = None

    # ---------------------------------------------------------------------------------------------------------- results
    def print_losses(self) -> None:
        """Print the losses and metrics of the last epoch."""
        parts = [f"Training = {self._last_training():.3E}"]
        if self.loss_vals["Validation"]:
            parts.append(f"Validation = {self.loss_vals['Validation'][-1]:.3E}")
        parts += [
            f"{metric.name} = {values[-1]:.3E}"
            for metric, values in zip(self._metrics, self.metric_vals, strict=True)
            if values
        ]
        print(f"Epoch {self._fit.epoch}: {' | '.join(parts)}")  # noqa: T201 - documented

    def _last_training(self) -> float:
        """Mean training loss over the updates of the last epoch."""
        values = self.loss_vals["Training"][-self._n_batches :]
        return sum(values) / len(values) if values else math.nan

    @property
    def _n_batches(self) -> int:
        fit = self._fit
        return -(-len(fit.trn_passives or ()) // (fit.passive_bs or 1)) or 1

    def get_loss_history(self) -> tuple[OrderedDict[str, list[float]], OrderedDict[str, list[float]]]:
        """Losses and metrics so far.

        Returns:
            ``"Training"`` (per update) and ``"Validation"`` (per epoch) losses; values of every metric per epoch.
        """
        metrics = OrderedDict((m.name, list(v)) for m, v in zip(self._metrics, self.metric_vals, strict=True))
        return OrderedDict((name, list(values)) for name, values in self.loss_vals.items()), metrics

    def get_results(self, loaded_best: bool) -> dict[str, float]:
        """Validation loss and metrics of one epoch.

        Args:
            loaded_best: Whether to take the epoch with the best main metric (or loss, where there is none); otherwise
                the last.

        Returns:
            ``"loss"`` and every metric by name; nothing before the first validation.
        """
        losses = self.loss_vals["Validation"]
        if not losses:
            return {}
        index = len(losses) - 1
        if loaded_best:
            scores = losses
            for metric, values in zip(self._metrics, self.metric_vals, strict=True):
                if metric.main_metric:
                    scores = values if metric.lower_metric_better else [-value for value in values]
            index = min(range(len(scores)), key=lambda i: math.inf if math.isnan(scores[i]) else scores[i])
        named = zip(self._metrics, self.metric_vals, strict=True)
        return {"loss": losses[index], **{metric.name: values[index] for metric, values in named}}

    # ---------------------------------------------------------------------------------------------------------- drawing
    def update_plot(self) -> None:
        """Draw the history anew."""
        import matplotlib as mpl

        with mpl.rc_context(self.style["rc"]):
            figure = self._new_figure()
            figure.clear()
            self._draw(figure)
        self._show(figure)

    def _new_figure(self) -> Figure:
        if self._figure is None:
            import matplotlib.pyplot as plt

            self._figure = plt.figure(figsize=(self.w_mid, self.w_mid), constrained_layout=True)
        return self._figure

    def _draw(self, figure: Figure) -> None:
        """Losses, their parts, and the main metric, one below the other."""
        main = self._main_metric()
        rows = ["loss", "parts", *(["metric"] if main is not None else [])]
        axes = figure.subplot_mosaic([[row] for row in rows], height_ratios=[3, *[1] * (len(rows) - 1)])
        self._draw_history(axes)

    def _main_metric(self) -> int | None:
        return next((i for i, metric in enumerate(self._metrics) if metric.main_metric), None)

    def _draw_history(self, axes: dict[Any, Any]) -> None:
        epochs = range(1, len(self.loss_vals["Validation"]) + 1)
        loss = axes["loss"]
        per_update = [(i + 1) / self._n_batches for i in range(len(self.loss_vals["Training"]))]
        loss.plot(per_update, self.loss_vals["Training"], label="Training")
        if epochs:
            loss.plot(epochs, self.loss_vals["Validation"], label="Validation")
            if math.isfinite(self.best_loss):
                loss.axhline(self.best_loss, ls="--", color="grey", label=f"Best = {self.best_loss:.3E}")
        loss.legend(fontsize=self.leg_sz)
        loss.set_ylabel("Loss", fontsize=self.lbl_sz, color=self.lbl_col)
        parts = axes["parts"]
        if self.sub_losses and epochs:
            length = min(len(values) for values in self.sub_losses.values())
            stack = [values[:length] for values in self.sub_losses.values()]
            parts.stackplot(range(1, length + 1), *stack, labels=list(self.sub_losses))
            parts.legend(fontsize=self.leg_sz)
        parts.set_ylabel("Composition", fontsize=self.leg_sz, color=self.lbl_col)
        lowest = parts
        main = self._main_metric()
        if main is not None and "metric" in axes:
            lowest = axes["metric"]
            lowest.plot(range(1, len(self.metric_vals[main]) + 1), self.metric_vals[main])
            lowest.set_ylabel(self._metrics[main].name, fontsize=self.leg_sz, color=self.lbl_col)
        lowest.set_xlabel("Epoch", fontsize=self.lbl_sz, color=self.lbl_col)
        for axis in axes.values():
            axis.tick_params(labelsize=self.tk_sz, labelcolor=self.tk_col)
            axis.grid(True, alpha=0.3)

    def _show(self, figure: Figure) -> None:
        """Show the figure in a notebook; elsewhere it is only drawn, for the animation."""
        if "IPython" not in sys.modules:
            return
        ipython: Any = sys.modules["IPython"]
        if ipython.get_ipython() is None:
            return
        if self._display is None:
            self._display = ipython.display.display(figure, display_id=True)
        else:
            self._display.update(figure)

    def _snapshot(self) -> None:
        """Take a picture of the figure for the animation."""
        if not self.show_plots or self.gif_filename is None or not self.loss_vals["Training"]:
            return
        if self._figure is None:
            self.update_plot()
        assert self._figure is not None
        picture = io.BytesIO()
        self._figure.savefig(picture, format="png", dpi=50)
        self._frames.append(picture.getvalue())


class PanelMetricLogger(MetricLogger):
    """As `MetricLogger`, and draws the panels of the first two detector layers: from the front, the side, and above.

    Panels with a smoothness get a fourth picture: how their response falls towards the edge and beyond.

    Args:
        gif_filename: See `MetricLogger`.
        gif_length: See `MetricLogger`.
        show_plots: See `MetricLogger`.
    """

    def update_plot(self) -> None:
        """Draw history and panels anew."""
        super().update_plot()

    def _draw(self, figure: Figure) -> None:
        from diffdet.tomography.plotting.panels import draw_layer, draw_response

        layers = self._wrapper.get_detectors()[:2]
        smooth = any(hasattr(panel, "smooth") for layer in layers for panel in layer.yield_panels())
        views = ["xz", "yz", "xy", *(["response"] if smooth else [])]
        main = [["metric"] * len(views)] if self._main_metric() is not None else []
        rows = [["loss"] * len(views), ["parts"] * len(views), *main]
        panels = [[f"{layer.pos} {view}" for view in views] for layer in layers]
        ratios = [2, *[1] * (len(rows) - 1), *[1.5] * len(panels)]
        axes: dict[Any, Any] = figure.subplot_mosaic([*rows, *panels], height_ratios=ratios)
        self._draw_history({name: axes[name] for name in ("loss", "parts", "metric") if name in axes})
        footprint = self._wrapper.volume.get_passives()[0].extent
        for layer in layers:
            draw_layer(layer, footprint, *(axes[f"{layer.pos} {view}"] for view in ("xz", "yz", "xy")))
            if smooth:
                draw_response(layer, axes[f"{layer.pos} response"])


def _number(value: Any) -> float:
    """A loss, of whatever shape, as a number."""
    return float(value.detach().sum()) if hasattr(value, "detach") else float(value)
