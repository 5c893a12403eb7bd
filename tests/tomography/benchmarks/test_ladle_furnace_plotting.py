"""Comparisons of detectors show mean and spread of the furnaces of each level, and are written where they should be."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.benchmarks.ladle_furnace import plotting
from diffdet.tomography.benchmarks.ladle_furnace.plotting import Series, comparison_figure

LEVELS = torch.tensor([0.6, 0.7, 0.8, 1.3], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _nobody_is_looking():
    before = mpl.get_backend()
    mpl.use("agg")
    yield
    mpl.use(before)


def table(seed=0, slope=0.5):
    """Five furnaces of every level; the raw prediction is squeezed towards 1 m."""
    true = LEVELS.repeat(5)
    noise = 0.02 * torch.randn(len(true), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    columns = {"gen_target": true}
    for prefix, pred in (("", 1 + slope * (true - 1) + noise), ("new_", true + noise / slope)):
        columns |= {f"{prefix}pred": pred, f"{prefix}bias": pred - true, f"{prefix}mse": (pred - true).square()}
    return columns


def drawn(figure):
    """(x, mean, low, high) of every series, and its legend text."""
    (axes,) = figure.axes
    out = {}
    for container in axes.containers:
        points, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        out[container.get_label()] = (*map(np.asarray, points.get_data()), *ends.T)
    return out


@pytest.mark.parametrize("quantity", ["predictions", "bias", "mse"])
@pytest.mark.parametrize("corrected", [True, False])
def test_mean_and_standard_deviation_by_level(quantity, corrected):
    data = table()
    column = {"predictions": "pred", "bias": "bias", "mse": "mse"}[quantity]
    values = data[("new_" if corrected else "") + column].reshape(5, 4)
    figure = comparison_figure([Series("One", data, corrected)], quantity)
    ((label, (x, mean, low, high)),) = drawn(figure).items()
    assert x == pytest.approx(LEVELS.numpy())
    assert mean == pytest.approx(values.mean(0).numpy())
    assert high - mean == pytest.approx(values.std(0).numpy())
    assert mean - low == pytest.approx(values.std(0).numpy())
    prefix = "new_" if corrected else ""
    if quantity == "mse":
        assert label == f"One: MSE = {float(data[prefix + 'mse'].mean()):.2E} m²"
    else:
        assert label == f"One: mean |bias| = {float(data[prefix + 'bias'].abs().mean()):.2E} m"
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == label


def test_series_stand_beside_each_other_about_the_level():
    figure = comparison_figure([Series(name, table(k)) for k, name in enumerate("abc")], "predictions")
    x = np.array([points[0] for points in drawn(figure).values()])
    assert x.mean(0) == pytest.approx(LEVELS.numpy())
    assert (np.diff(x, axis=0) > 0).all()
    assert (np.ptp(x, axis=0) < 0.05).all()


def test_axes_say_what_they_show():
    (axes,) = comparison_figure([Series("One", table())], "predictions").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("True level [m]", "Predicted level [m]")
    (truth,) = [line for line in axes.lines if line.get_label() == "prediction = truth"]
    assert np.array_equal(*truth.get_data())
    (axes,) = comparison_figure([Series("One", table())], "bias").axes
    assert axes.get_ylabel() == "Bias: predicted − true level [m]"
    (axes,) = comparison_figure([Series("One", table())], "mse").axes
    assert axes.get_ylabel() == "Squared error [m²]"
    assert axes.get_ylim()[0] == 0


def test_a_logarithmic_axis_holds_all_means():
    (axes,) = comparison_figure([Series("One", table())], "mse", log=True).axes
    assert axes.get_yscale() == "log"
    (_, mean, _, high) = next(iter(drawn(axes.figure).values()))
    assert axes.get_ylim()[0] < mean.min()
    assert axes.get_ylim()[1] > high.max()


def test_one_furnace_of_a_level_has_no_spread_and_rounding_makes_no_levels():
    data = {"gen_target": [0.1 + 0.2, 0.3, 0.5], "new_bias": [1.0, 3.0, 4.0]}
    ((x, mean, low, high),) = drawn(comparison_figure([Series("One", data)], "bias")).values()
    assert x.tolist() == pytest.approx([0.3, 0.5])
    assert mean.tolist() == [2.0, 4.0]
    assert high[1] == low[1] == 4.0


@pytest.mark.parametrize(
    ("function", "n_tables", "prefix", "names", "log"),
    [
        (plotting.compare_raw_init_to_bias_corrected_init, 1, "initial", ["Initial, raw", "Initial, corrected"], False),
        (plotting.compare_init_to_optimised, 2, "optimised", ["Initial", "Optimised"], True),
        (plotting.compare_init_optimised_2, 2, "optimised_2", ["Initial", "Optimised twice"], True),
        (plotting.compare_optimised_to_baselines, 3, "baseline", ["Baseline 1", "Baseline 2", "Optimised"], True),
    ],
)
def test_each_comparison_writes_its_three_files(tmp_path, monkeypatch, function, n_tables, prefix, names, log):
    figures = {}

    def keep(series, quantity, *, log):
        figures[quantity] = comparison_figure(series, quantity, log=log)
        return figures[quantity]

    monkeypatch.setattr(plotting, "comparison_figure", keep)
    assert function(*(table(k) for k in range(n_tables)), str(tmp_path / "run")) is None
    written = sorted(path.name for path in (tmp_path / "run_plots").iterdir())
    assert written == sorted(f"{prefix}_{quantity}.pdf" for quantity in ("predictions", "bias", "mse"))
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "run_plots").iterdir())
    assert [label.partition(":")[0] for label in drawn(figures["bias"])] == names
    assert figures["mse"].axes[0].get_yscale() == ("log" if log else "linear")
    assert figures["predictions"].get_size_inches() == pytest.approx([12, 8])


def test_wrong_tables(tmp_path):
    bare = {"gen_target": [0.6], "pred": [0.7]}
    with pytest.raises(
        InputError, match="the table of 'Initial' must have a column 'new_pred'; it has 'gen_target', 'pred'"
    ):
        plotting.compare_init_to_optimised(bare, table(), str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ShapeError, match="one length; got 2 targets and 1 values"):
        comparison_figure(
            [Series("One", {"gen_target": [0.6, 0.7], "new_pred": [0.5], "new_bias": [0.1]})], "predictions"
        )
    with pytest.raises(InputError, match="must have rows; its column 'gen_target' is empty"):
        comparison_figure([Series("One", {"gen_target": [], "new_bias": []})], "bias")
