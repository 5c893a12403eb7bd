"""Where to cut on a classifier's score, by the significance that is expected above the cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffdet.core.checks import check_in_range, check_positive, did_you_mean
from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels.significance import asimov_significance, yields_above
from diffdet.nn.metrics import EvalMetric

__all__ = [
    "AMS",
    "MultiAMS",
    "ams_scan_quick",
    "ams_scan_slow",
    "binary_class_cut_by_ams",
    "calc_ams",
    "calc_ams_torch",
    "significance_of_cuts",
]


def calc_ams(s: float, b: float, br: float = 0, unc_b: float = 0) -> float:
    """Median significance expected for a signal above a background; see `asimov_significance`.

    Args:
        s: Expected signal.
        b: Expected background.
        br: Constant to add to the background: keeps cuts with hardly any from winning by a fluctuation.
        unc_b: Relative uncertainty of the background.

    Returns:
        Significance, in standard deviations.

    Raises:
        InputError: If a yield is negative or not finite, or there is no background at all.
    """
    for name, value in (("s", s), ("b", b), ("br", br), ("unc_b", unc_b)):
        check_in_range(name, value, 0.0)
    check_positive("b + br", b + br)
    s_, b_, sigma = (torch.tensor(v, dtype=torch.float64) for v in (s, b + br, unc_b * (b + br)))
    return asimov_significance(s_, b_, sigma).item()


def calc_ams_torch(s: Tensor, b: Tensor, br: float = 0, unc_b: float = 0) -> Tensor:
    """`calc_ams` of tensors, differentiable; 0 where there is no background.

    Args:
        s: Expected signal, any shape.
        b: Expected background, same shape.
        br: Constant to add to the background.
        unc_b: Relative uncertainty of the background.
    """
    total = b + br
    return asimov_significance(s, total, unc_b * total)


def significance_of_cuts(
    scores: Any,
    targets: Any,
    weights: Any = None,
    *,
    wgt_factor: float = 1,
    br: float = 0,
    syst_unc_b: float = 0,
    use_stat_unc: bool = False,
    min_events: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Significance above every cut that separates samples: exact, by one sort.

    Args:
        scores: Predictions, (sample,), larger for signal.
        targets: 1 for signal, 0 for background.
        weights: Weights, (sample,); 1 where None.
        wgt_factor: Factor on all weights, for example to scale a subsample to the whole.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        use_stat_unc: Whether to add the statistical uncertainty of the simulated background, sqrt(sum w^2).
        min_events: Cuts with fewer background samples above them count as worth 0.

    Returns:
        Cuts, ascending, and the significance of ``score >= cut``.

    Raises:
        InputError: If there is no signal or no background, or scores or weights are not finite.
        ShapeError: If lengths differ.
    """
    columns = [np.asarray(scores).reshape(-1), np.asarray(targets).reshape(-1)]
    columns.append(np.ones(len(columns[0])) if weights is None else np.asarray(weights).reshape(-1))
    if len({len(column) for column in columns}) > 1:
        raise ShapeError(f"scores, targets and weights must be as many; got {[len(column) for column in columns]}")
    for name, column in zip(("predictions", "targets", "weights"), columns, strict=True):
        if not np.isfinite(column).all():
            raise InputError(f"{name} must be finite; {int((~np.isfinite(column)).sum())} are not")
    signal = columns[1] > 0.5
    if signal.all() or not signal.any():
        raise InputError(f"there must be signal and background; got {int(signal.sum())} of {len(signal)} signal")
    cuts, s, b, b_squared, n_b = yields_above(
        torch.from_numpy(columns[0].astype(np.float64)),
        torch.from_numpy(signal),
        torch.from_numpy(columns[2].astype(np.float64)) * wgt_factor,
    )
    total = b.clamp_min(0) + br
    variance = (syst_unc_b * total).square() + (b_squared if use_stat_unc else 0)
    z = asimov_significance(s.clamp_min(0), total, variance.sqrt())
    return cuts.numpy(), torch.where(n_b >= min_events, z, 0).numpy()


def _columns(df: Any, names: Sequence[str], optional: str | None = None) -> list[Any]:
    known = [str(name) for name in (df.columns if hasattr(df, "columns") else df)]
    for name in names:
        if name not in known:
            raise InputError(f"`df` must have a column {name!r}; it has {', '.join(known)}{did_you_mean(name, known)}")
    found = [np.asarray(df[name]) for name in names]
    return found if optional is None else [*found, np.asarray(df[optional]) if optional in known else None]


def ams_scan_quick(
    df: Mapping[str, Any] | Any,
    wgt_factor: float = 1,
    br: float = 0,
    syst_unc_b: float = 0,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str = "gen_weight",
) -> tuple[float, float]:
    """Highest significance over all cuts on the predictions, and its cut. Exact.

    Args:
        df: Table with predictions, targets and, if there are any, weights.
        wgt_factor: Factor on all weights.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        pred_name: Column of the predictions.
        targ_name: Column of the targets.
        wgt_name: Column of the weights; all 1 where there is none.

    Returns:
        Significance, and cut: signal is what is predicted to be at least that.

    Raises:
        InputError: If a column is missing, or as `significance_of_cuts`.
    """
    scores, targets, weights = _columns(df, [pred_name, targ_name], wgt_name)
    cuts, z = significance_of_cuts(scores, targets, weights, wgt_factor=wgt_factor, br=br, syst_unc_b=syst_unc_b)
    best = int(np.argmax(z))
    return float(z[best]), float(cuts[best])


def ams_scan_slow(
    df: Mapping[str, Any] | Any,
    wgt_factor: float = 1,
    br: float = 0,
    syst_unc_b: float = 0,
    use_stat_unc: bool = False,
    start_cut: float = 0.9,
    min_events: int = 10,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str = "gen_weight",
) -> tuple[float, float]:
    """Highest significance over the cuts that keep enough background, with its statistical uncertainty if asked for.

    Slow by name only: all cuts are looked at by one sort. (The original loops over pandas for every cut.)

    Args:
        df: Table with predictions, targets and, if there are any, weights.
        wgt_factor: Factor on all weights.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        use_stat_unc: Whether to add the statistical uncertainty of the simulated background.
        start_cut: Lowest cut to look at.
        min_events: Least number of background samples above the cut.
        pred_name: Column of the predictions.
        targ_name: Column of the targets.
        wgt_name: Column of the weights; all 1 where there is none.

    Returns:
        Significance, and cut.

    Raises:
        InputError: If a column is missing, no prediction reaches `start_cut`, or as `significance_of_cuts`.
    """
    scores, targets, weights = _columns(df, [pred_name, targ_name], wgt_name)
    cuts, z = significance_of_cuts(
        *(scores, targets, weights),
        wgt_factor=wgt_factor,
        br=br,
        syst_unc_b=syst_unc_b,
        use_stat_unc=use_stat_unc,
        min_events=min_events,
    )
    allowed = cuts >= start_cut
    if not allowed.any():
        raise InputError(f"`start_cut` must be at most the largest prediction, {cuts[-1]:g}; got {start_cut:g}")
    best = int(np.argmax(np.where(allowed, z, -1)))
    return float(z[best]), float(cuts[best])


def binary_class_cut_by_ams(
    df: Mapping[str, Any] | Any,
    top_perc: float = 5.0,
    min_pred: float = 0.9,
    wgt_factor: float = 1,
    br: float = 0,
    syst_unc_b: float = 0,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str = "gen_weight",
) -> tuple[float, float, float]:
    """A cut that holds on other data: the mean of the best few per cent of cuts, not the one that fluctuated highest.

    Args:
        df: Table with predictions, targets and, if there are any, weights.
        top_perc: Per cent of the cuts to take the mean of, by significance.
        min_pred: Lowest cut to look at.
        wgt_factor: Factor on all weights.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        pred_name: Column of the predictions.
        targ_name: Column of the targets.
        wgt_name: Column of the weights; all 1 where there is none.

    Returns:
        Cut, significance at it, highest significance over all cuts.

    Raises:
        InputError: If a column is missing, no prediction reaches `min_pred`, or as `significance_of_cuts`.
    """
    check_in_range("top_perc", top_perc, 0.0, 100.0, low_open=True)
    scores, targets, weights = _columns(df, [pred_name, targ_name], wgt_name)
    cuts, z = significance_of_cuts(scores, targets, weights, wgt_factor=wgt_factor, br=br, syst_unc_b=syst_unc_b)
    allowed = np.flatnonzero(cuts >= min_pred)
    if not len(allowed):
        raise InputError(f"`min_pred` must be at most the largest prediction, {cuts[-1]:g}; got {min_pred:g}")
    ranked = allowed[np.argsort(z[allowed])[::-1]]
    cut = float(cuts[ranked[: max(1, round(len(ranked) * top_perc / 100))]].mean())
    at_cut = min(int(np.searchsorted(cuts, cut)), len(cuts) - 1)
    return cut, float(z[at_cut]), float(z[ranked[0]])


class AMS(EvalMetric):
    """Highest significance over all cuts on the predictions of the validation data.

    Args:
        n_total: Number of samples that the weights' sum stands for; the validation fold is scaled up to it. 0 takes
            weights as they are.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        main_metric: Whether a fit is judged by it.
        name: Name of the metric.
    """

    def __init__(
        self,
        n_total: int = 0,
        br: float = 0,
        syst_unc_b: float = 0,
        main_metric: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name, lower_metric_better=False, main_metric=main_metric)
        self.n_total, self.br, self.syst_unc_b = n_total, br, syst_unc_b

    def _best(self, scores: Tensor, targets: Tensor) -> float:
        factor = self.n_total / len(scores) if self.n_total else 1.0
        columns = (part.reshape(-1).cpu().numpy() for part in (scores, targets, self.weights))
        _, z = significance_of_cuts(*columns, wgt_factor=factor, br=self.br, syst_unc_b=self.syst_unc_b)
        return float(z.max())

    def evaluate(self) -> float:
        """The significance."""
        return self._best(self.preds, self.targets)


class MultiAMS(AMS):
    """Significance of several signal classes of a multiclass model together: the root of the sum of squares.

    Args:
        classes: Numbers of the classes that are signal; each is cut on by its own probability, all others are its
            background.
        n_total: See `AMS`.
        br: Constant to add to the background.
        syst_unc_b: Relative uncertainty of the background.
        main_metric: Whether a fit is judged by it.
        name: Name of the metric.

    Raises:
        InputError: If there is no class.
    """

    def __init__(
        self,
        classes: Sequence[int],
        n_total: int = 0,
        br: float = 0,
        syst_unc_b: float = 0,
        main_metric: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(n_total, br, syst_unc_b, main_metric, name)
        if not classes:
            raise InputError("`classes` must be numbers of classes that are signal; got none")
        self.classes = [int(k) for k in classes]

    def evaluate(self) -> float:
        """The significance."""
        wrong = [k for k in self.classes if not 0 <= k < self.preds.shape[1]]
        if wrong:
            raise InputError(f"`classes` must be from 0 to {self.preds.shape[1] - 1}; got {wrong}")
        targets = self.targets.reshape(-1)
        values = [self._best(self.preds[:, k], (targets == k).to(self.preds.dtype)) for k in self.classes]
        return float(np.sqrt(np.square(values).sum()))
