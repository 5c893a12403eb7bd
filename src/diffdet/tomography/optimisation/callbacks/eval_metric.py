"""Base class of metrics that are evaluated while fitting."""

from __future__ import annotations

from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["EvalMetric"]


class EvalMetric(Callback):
    """Base class of metrics. Inherit, and set ``metric`` in the hooks that you need.

    Loggers find metrics by themselves. The main metric is the one by which a fit is judged.

    Args:
        lower_metric_better: Whether a lower value is better.
        name: Name of the metric; that of the class where None.
        main_metric: Whether it is the main metric. A fit has one: where several are marked, the first one stays.
    """

    saved = ("metric", "main_metric")

    def __init__(self, lower_metric_better: bool, name: str | None = None, main_metric: bool = True) -> None:
        self.lower_metric_better = lower_metric_better
        self.name = type(self).__name__ if name is None else name
        self.main_metric = main_metric
        self.metric: float | None = None

    def on_train_begin(self) -> None:
        """See to it that there is one main metric."""
        super().on_train_begin()
        if self.main_metric:
            for other in self._fit.metric_cbs or ():
                if other is not self:
                    other.main_metric = False

    def get_metric(self) -> float | None:
        """The metric's value; None until it was evaluated."""
        return self.metric
