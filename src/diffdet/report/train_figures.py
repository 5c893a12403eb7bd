"""Predictions for test events as figures: curves of classifiers, errors of regressions, importance of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffdet.report import svg
from diffdet.report.numbers import count, fixed, significant
from diffdet.report.train_data import Judged, counts

if TYPE_CHECKING:
    import numpy as np

__all__ = ["figures", "importance_figure"]

_CLASS_COLOURS = (svg.INITIAL, svg.FINAL, svg.FIRST, svg.SECOND, svg.SOFT, svg.INK)


def figures(judged: Judged) -> list[tuple[str, str]]:
    """Figures of predictions, by objective.

    Args:
        judged: Predictions and truth.

    Returns:
        ``(caption, svg)`` for each figure.
    """
    if judged.objective == "regression":
        return [entry for output in range(judged.pred.shape[1]) for entry in _regression(judged, output)]
    if judged.objective == "multiclass":
        return _multiclass(judged)
    return [entry for output in range(judged.pred.shape[1]) for entry in _binary(judged, output)]


# ------------------------------------------------------------------------------------------------------------- classes
def _tensors(scores: np.ndarray, signal: np.ndarray, weight: np.ndarray) -> tuple[Any, Any, Any]:
    import numpy as np
    import torch

    return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in (scores.astype(np.float64), signal, weight))  # type: ignore[return-value]


def _binary(judged: Judged, output: int) -> list[tuple[str, str]]:
    import numpy as np

    several = judged.pred.shape[1] > 1
    what = f"output {output}" if several else "the network's score"
    signal = judged.target[:, output] > 0.5
    scores = judged.pred[:, output]
    if signal.all() or not signal.any():
        return []
    found = [
        *_rocs(
            [("", scores, signal)],
            judged,
            "Signal kept against background kept, over all cuts; the band is one standard error",
        ),
        ("Scores of test events, each class normalised", _scores(scores, signal, judged.weight, what)),
        (
            "Share of signal, by the data's weights, among events of like score: on the diagonal it is a probability",
            _calibration(scores, signal, judged.weight),
        ),
    ]
    cut = judged.best_cut
    if cut is not None and not several and np.isfinite(cut.curve).any():
        text = (
            f"Expected significance above a cut. At the best, {fixed(cut.cut, 3)}, {count(cut.signal)} signal and "
            f"{count(cut.background)} background events are expected{cut.scope}"
        )
        found.append((text, _significance(cut)))
    return found


def _rocs(curves: Sequence[tuple[str, np.ndarray, np.ndarray]], judged: Judged, caption: str) -> list[tuple[str, str]]:
    """The same curves on a linear and a logarithmic axis: most analyses live at the far left."""
    import numpy as np
    import torch

    from diffdet.kernels.score_curves import roc_band, roc_curve

    grid = torch.cat([torch.zeros(1), torch.logspace(-4, 0, 161)]).to(torch.float64)
    drawn = []
    for k, (name, scores, signal) in enumerate(curves):
        colour = svg.FINAL if len(curves) == 1 else _CLASS_COLOURS[k % len(_CLASS_COLOURS)]
        tensors = _tensors(scores, signal, judged.weight)
        curve = tuple(part.numpy() for part in roc_curve(*tensors))
        band = roc_band(*tensors, grid, counts(len(scores), judged.seed)).numpy()
        drawn.append((name, colour, curve, np.nanmean(band, axis=0), np.nanstd(band, axis=0)))
    fewest = min(int((~signal).sum()) for _, _, signal in curves)
    pictures = []
    for log in (False, True):
        with svg.style():
            figure, axes = svg.new(height=3.6)
            for name, colour, (background, kept), middle, spread in drawn:
                low, high = np.maximum(middle - spread, 0), np.minimum(middle + spread, 1)
                axes.fill_between(grid.numpy(), low, high, color=colour, alpha=0.22, lw=0)
                axes.plot(background, kept, color=colour, lw=1.4, label=name or None)
            line = grid[1:].numpy()
            axes.plot(line, line, color=svg.SOFT, lw=1, ls=(0, (4, 2)))
            if log:
                axes.set(xscale="log", xlim=(max(1e-4, 3 / max(1, fewest)), 1), ylim=(0, 1.005))
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            else:
                axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
            svg.label(axes, x="background kept", y="signal kept")
            if len(drawn) > 1:
                axes.legend(loc="upper left" if log else "lower right")
            what = "Receiver operating characteristic" + (", logarithmic axis" if log else "")
            pictures.append((caption if not log else "The same on a logarithmic axis", svg.to_svg(figure, what)))
    return pictures


def _scores(scores: np.ndarray, signal: np.ndarray, weight: np.ndarray, what: str) -> str:
    import numpy as np

    inside = scores.min() >= 0 and scores.max() <= 1
    edges = np.linspace(0, 1, 41) if inside else np.linspace(scores.min(), scores.max(), 41)
    step = edges[1] - edges[0]
    heights, floor = [], np.inf
    for chosen in (~signal, signal):
        scale = weight[chosen].sum() * step
        height = np.histogram(scores[chosen], edges, weights=weight[chosen])[0] / scale
        error = np.sqrt(np.histogram(scores[chosen], edges, weights=weight[chosen] ** 2)[0]) / scale
        heights.append((height, error))
        floor = min(floor, height[height > 0].min(initial=np.inf))
    floor /= 3
    with svg.style():
        figure, axes = svg.new(height=3.6)
        for name, colour, (height, error) in zip(
            ("background", "signal"), (svg.INITIAL, svg.FINAL), heights, strict=True
        ):
            low, high = np.maximum(height - error, floor), np.maximum(height + error, floor)
            axes.stairs(high, edges, baseline=low, color=colour, fill=True, alpha=0.22, lw=0)
            axes.stairs(np.maximum(height, floor), edges, baseline=None, color=colour, lw=1.4, label=name)
        axes.set(yscale="log", ylim=(floor, None))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        svg.label(axes, x=what, y="density")
        axes.legend(loc="upper center", ncols=2)
        return svg.to_svg(figure, "Distribution of scores of signal and background")


def _calibration(scores: np.ndarray, signal: np.ndarray, weight: np.ndarray) -> str:
    import torch

    from diffdet.kernels.score_curves import calibration

    edges = torch.linspace(0, 1, 13, dtype=torch.float64)
    mean, share, error, total = (part.numpy() for part in calibration(*_tensors(scores, signal, weight), edges))
    with svg.style():
        figure, axes = svg.new(height=3.6)
        axes.plot([0, 1], [0, 1], color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        heights = total / total.sum()
        axes.stairs(heights / max(heights.max(), 1e-12) * 0.16, edges.numpy(), color=svg.RULE, fill=True, lw=0)
        axes.errorbar(mean, share, error, color=svg.FINAL, marker="o", ms=4, ls="", elinewidth=1.2)
        axes.annotate("events", (0.5, 0.02), color=svg.SOFT, fontsize=9, ha="center")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        svg.label(axes, x="mean score", y="share of signal")
        return svg.to_svg(figure, "Share of signal among events of like score")


def _significance(cut: Any) -> str:
    with svg.style():
        figure, axes = svg.new(height=3.6)
        axes.fill_between(cut.cuts, *cut.band, color=svg.FINAL, alpha=0.22, lw=0)
        axes.plot(cut.cuts, cut.curve, color=svg.FINAL, lw=1.4)
        axes.plot([cut.cut], [cut.significance], color=svg.INITIAL, marker="o", ms=5)
        axes.set_ylim(bottom=0)
        svg.label(axes, x="cut on the score", y="expected significance [σ]")
        return svg.to_svg(figure, "Expected significance by cut")


def _multiclass(judged: Judged) -> list[tuple[str, str]]:
    import numpy as np

    classes = judged.target[:, 0].astype(np.int64)
    n = judged.pred.shape[1]
    present = [k for k in range(n) if 0 < (classes == k).sum() < len(classes)]
    curves = [(f"class {k}", judged.pred[:, k], classes == k) for k in present]
    found = _rocs(curves, judged, "Each class against the rest, over all cuts; bands are one standard error")
    found.append(
        (
            "Share of the events of a true class (row) that are predicted as another, in per cent",
            _confusion(judged, classes),
        )
    )
    chosen = judged.pred.argmax(1)
    top = judged.pred[np.arange(len(chosen)), chosen]
    found.append(
        (
            "Share of right predictions among events of like confidence",
            _calibration(top, chosen == classes, judged.weight),
        )
    )
    return found


def _confusion(judged: Judged, classes: np.ndarray) -> str:
    import numpy as np

    n = judged.pred.shape[1]
    matrix = np.zeros((n, n))
    np.add.at(matrix, (classes, judged.pred.argmax(1)), judged.weight)
    matrix = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1e-300)
    with svg.style():
        figure, axes = svg.new(height=3.6)
        axes.grid(False)
        for row in range(n):
            for column in range(n):
                axes.fill_between(
                    [column, column + 1], row, row + 1, color=svg.FINAL, alpha=0.75 * matrix[row, column] / 100, lw=0
                )
                axes.annotate(
                    f"{matrix[row, column]:.0f}", (column + 0.5, row + 0.5), ha="center", va="center", fontsize=9
                )
        ticks = [k + 0.5 for k in range(n)]
        axes.set(xlim=(0, n), ylim=(n, 0), xticks=ticks, yticks=ticks, aspect="equal")
        axes.set_xticklabels([str(k) for k in range(n)])
        axes.set_yticklabels([str(k) for k in range(n)])
        svg.label(axes, x="predicted class", y="true class")
        return svg.to_svg(figure, "Confusion of classes")


# ---------------------------------------------------------------------------------------------------------- regression
def _regression(judged: Judged, output: int) -> list[tuple[str, str]]:
    import numpy as np

    truth, pred = judged.target[:, output], judged.pred[:, output]
    if np.ptp(truth) <= 0 or len(truth) < 20:
        return []
    what = (
        judged.names[output]
        if output < len(judged.names)
        else "value"
        if judged.pred.shape[1] == 1
        else f"value {output}"
    )
    edges = np.unique(np.quantile(truth, np.linspace(0, 1, min(17, 2 + len(truth) // 40))))
    return [
        (
            "Predictions against the truth: median, and the bands that hold 68 and 95 per cent",
            _against(truth, pred, edges, what),
        ),
        (
            "Errors of all test events; the curve is a normal distribution of the same quantiles",
            _residuals(pred - truth, judged.weight, what),
        ),
        (
            "Bias (median error) and resolution (half the width that holds 68 per cent) by true value",
            _by_truth(truth, pred, edges, judged, what),
        ),
        ("Calibration: mean true value of events that are predicted alike", _mean_truth(truth, pred, judged, what)),
    ]


def _quantiles(x: np.ndarray, values: np.ndarray, edges: np.ndarray, q: tuple[float, ...]) -> np.ndarray:
    import numpy as np
    import torch

    from diffdet.kernels.score_curves import binned_quantiles

    a, b, c = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64)) for part in (x, values, edges))
    return binned_quantiles(a, b, c, q).numpy()


def _against(truth: np.ndarray, pred: np.ndarray, edges: np.ndarray, what: str) -> str:
    import numpy as np

    found = _quantiles(truth, pred, edges, (0.025, 0.16, 0.5, 0.84, 0.975))
    middle = 0.5 * (edges[1:] + edges[:-1])
    there = np.isfinite(found[2])
    with svg.style():
        figure, axes = svg.new(height=3.8)
        for low, high, alpha in ((0, 4, 0.14), (1, 3, 0.26)):
            axes.fill_between(middle[there], found[low][there], found[high][there], color=svg.FINAL, alpha=alpha, lw=0)
        axes.plot([edges[0], edges[-1]], [edges[0], edges[-1]], color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        axes.plot(middle[there], found[2][there], color=svg.FINAL, marker="o", ms=3)
        svg.label(axes, x=f"true {what}", y=f"predicted {what}")
        return svg.to_svg(figure, "Predicted against true values")


def _residuals(errors: np.ndarray, weight: np.ndarray, what: str) -> str:
    import numpy as np

    low, median, high = np.quantile(errors, [0.1587, 0.5, 0.8413])
    width = max(0.5 * (high - low), 1e-30)
    edges = np.linspace(median - 5 * width, median + 5 * width, 61)
    with svg.style():
        figure, axes = svg.new(height=3.8)
        step, total = edges[1] - edges[0], weight.sum()
        height = np.histogram(errors, edges, weights=weight)[0] / total / step
        spread = np.sqrt(np.histogram(errors, edges, weights=weight**2)[0]) / total / step
        axes.stairs(height, edges, color=svg.FINAL, lw=1.4)
        axes.stairs(
            height + spread,
            edges,
            baseline=np.maximum(height - spread, 0),
            color=svg.FINAL,
            fill=True,
            alpha=0.22,
            lw=0,
        )
        x = np.linspace(edges[0], edges[-1], 201)
        axes.plot(
            x,
            np.exp(-0.5 * ((x - median) / width) ** 2) / width / np.sqrt(2 * np.pi),
            color=svg.SOFT,
            lw=1,
            ls=(0, (4, 2)),
        )
        axes.set_ylim(bottom=0)
        text = f"median {significant(float(median), 3)}\nwidth {significant(float(width), 3)}"
        axes.annotate(text, (0.03, 0.95), xycoords="axes fraction", va="top", fontsize=9, color=svg.SOFT)
        svg.label(axes, x=f"predicted − true {what}", y="density")
        return svg.to_svg(figure, "Distribution of errors")


def _by_truth(truth: np.ndarray, pred: np.ndarray, edges: np.ndarray, judged: Judged, what: str) -> str:
    import numpy as np

    errors = pred - truth

    def figures_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, median, high = _quantiles(truth[rows], errors[rows], edges, (0.1587, 0.5, 0.8413))
        return median, 0.5 * (high - low)

    everything = np.arange(len(truth))
    bias, width = figures_of(everything)
    replicates = [figures_of(np.repeat(everything, times)) for times in counts(len(truth), judged.seed, 50).numpy()]
    bias_error, width_error = (np.nanstd([pair[k] for pair in replicates], axis=0) for k in (0, 1))
    middle = 0.5 * (edges[1:] + edges[:-1])
    with svg.style():
        figure, axes = svg.new(height=3.8)
        axes.axhline(0, color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        axes.errorbar(
            middle, bias, bias_error, color=svg.INITIAL, marker="s", ms=3.5, lw=1.2, elinewidth=1, label="bias"
        )
        axes.errorbar(
            middle, width, width_error, color=svg.FINAL, marker="o", ms=3.5, lw=1.2, elinewidth=1, label="resolution"
        )
        svg.label(axes, x=f"true {what}", y=f"error of the {what}")
        axes.legend(loc="best")
        return svg.to_svg(figure, "Bias and resolution by true value")


def _mean_truth(truth: np.ndarray, pred: np.ndarray, judged: Judged, what: str) -> str:
    import numpy as np

    edges = np.unique(np.quantile(pred, np.linspace(0, 1, min(17, 2 + len(truth) // 40))))
    place = np.clip(np.searchsorted(edges, pred, side="right") - 1, 0, len(edges) - 2)
    n = len(edges) - 1
    total = np.maximum(np.bincount(place, judged.weight, n), 1e-300)
    mean, x = (np.bincount(place, judged.weight * part, n) / total for part in (truth, pred))
    spread = np.sqrt(np.bincount(place, judged.weight * (truth - mean[place]) ** 2, n) / total)
    error = spread * np.sqrt(np.bincount(place, judged.weight**2, n)) / total
    with svg.style():
        figure, axes = svg.new(height=3.8)
        axes.plot([edges[0], edges[-1]], [edges[0], edges[-1]], color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        axes.errorbar(x, mean, error, color=svg.FINAL, marker="o", ms=4, ls="", elinewidth=1.2)
        svg.label(axes, x=f"predicted {what}", y=f"mean true {what}")
        return svg.to_svg(figure, "Mean true value by prediction")


# ---------------------------------------------------------------------------------------------------------- importance
def importance_figure(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """How much the loss rises when a feature is shuffled, the largest first.

    Args:
        entries: ``feature``, ``importance`` and ``importance_se`` of each.

    Returns:
        ``(caption, svg)`` for one figure, or nothing where nothing was measured.
    """
    shown = list(entries)[:30]
    if not shown:
        return []
    with svg.style():
        figure, axes = svg.new(width=6.0, height=0.8 + 0.24 * len(shown))
        places = list(range(len(shown)))
        values = [100 * entry["importance"] for entry in shown]
        errors = [100 * entry["importance_se"] for entry in shown]
        axes.axvline(0, color=svg.SOFT, lw=0.8)
        colours = [svg.INITIAL if entry.get("kind") == "objects" else svg.FINAL for entry in shown]
        axes.barh(
            places, values, xerr=errors, height=0.62, color=colours, alpha=0.75, error_kw={"ecolor": svg.INK, "lw": 1}
        )
        axes.set_yticks(places, [str(entry["feature"]).replace("_", " ") for entry in shown])
        axes.tick_params(axis="y", length=0, labelcolor=svg.INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(False, axis="y")
        svg.label(axes, x="rise of the loss when the feature is shuffled [%]", y="")
        picture = svg.to_svg(figure, "Importance of features by permutation")
    more = len(entries) - len(shown)
    caption = "With standard errors, over permutations and events"
    if {entry.get("kind") for entry in shown} == {"flat", "objects"}:
        caption += "; features of objects (brown) are shuffled among all objects of all events"
    return [(caption + (f". {more} more features matter less" if more > 0 else ""), picture)]
