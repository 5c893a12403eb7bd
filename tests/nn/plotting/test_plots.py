"""Pictures: drawn without error, with the right numbers in them; wrong columns named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.plotting.embeddings import plot_embedding
from diffdet.nn.plotting.interpretation import plot_feat_importance
from diffdet.nn.plotting.plot_settings import PlotSettings
from diffdet.nn.plotting.results import plot_binary_class_pred, plot_roc, plot_sample_pred
from diffdet.nn.plotting.training import plot_train_history


def predictions(n=3000, seed=0, shift=2.0):
    draw = np.random.default_rng(seed)
    targets = (draw.random(n) < 0.4).astype(int)
    score = 1 / (1 + np.exp(-draw.normal(shift * targets - 1, 1)))
    sample = np.where(targets == 1, "signal", np.where(draw.random(n) < 0.7, "Z + jets", "top pairs"))
    return {"pred": score, "gen_target": targets, "gen_weight": draw.uniform(0.5, 1.5, n), "gen_sample": sample}


def settings(folder=".", **changes):
    return PlotSettings(savepath=folder, format="png", lbl_sz=18, tk_sz=13, leg_sz=13, **changes)


def test_settings_have_their_defaults_and_can_be_changed():
    plain = PlotSettings()
    assert (plain.format, plain.savepath, plain.h_mid, plain.cat_palette) == (".pdf", Path("."), 8, "tab10")
    assert plain.str2sz("small", "x") == pytest.approx(4 * 16 / 9)
    assert plain.style == {"style": "whitegrid", "rc": {"patch.edgecolor": "none"}}
    changed = PlotSettings(style="ticks", format="png", savepath="a", aspect=1, w_huge=3)
    assert (changed.style, changed.format, changed.savepath) == ({"style": "ticks"}, ".png", Path("a"))
    assert (changed.w_mid, changed.w_huge) == (8, 3)
    assert changed.rc()["axes.grid"] is False
    with pytest.raises(AttributeError, match="w_tiny"):
        _ = changed.w_tiny


def test_misspelt_settings_are_refused():
    with pytest.raises(InputError, match=r"no 'lbl_size'.*Did you mean 'lbl_sz'"):
        PlotSettings(lbl_size=3)
    with pytest.raises(InputError, match="`size` must be one of"):
        PlotSettings().str2sz("tiny", "x")


def test_the_area_under_the_curve_comes_with_its_uncertainty(tmp_path):
    import torch

    from diffdet.kernels.classifier_scores import area_under_roc

    df = predictions()
    found = plot_roc(
        [df, predictions(seed=1, shift=1)],
        labels=["good", "poor"],
        wgt_name="gen_weight",
        savename="roc",
        settings=settings(tmp_path),
    )
    area, error = found["good"]
    parts = (torch.from_numpy(df[name]) for name in ("pred", "gen_target", "gen_weight"))
    scores, targets, weights = parts
    assert area == pytest.approx(area_under_roc(scores, targets > 0, weights).item())
    assert 0.002 < error < 0.02
    assert found["poor"][0] < area
    assert (tmp_path / "roc.png").stat().st_size > 10_000
    again = plot_roc(df, n_bootstrap=0, log_x=True, settings=settings())
    assert isinstance(again[""], float)


def test_distributions_hold_the_weights(tmp_path):
    df = predictions()
    figure = plot_binary_class_pred(
        df, wgt_name="gen_weight", density=False, savename="pred", settings=settings(tmp_path), bins=20
    )
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["Background", "Signal"]
    heights = figure.axes[0].patches[0].get_data().values
    assert heights.sum() == pytest.approx(df["gen_weight"][df["gen_target"] == 0].sum())
    assert (tmp_path / "pred.png").exists()


@pytest.mark.parametrize("zoom", [None, {"x": (0.8, 1.0), "y": (1, 100)}])
def test_backgrounds_are_stacked_and_signals_are_lines(tmp_path, zoom):
    df = predictions()
    figure = plot_sample_pred(
        df,
        savename="sample",
        zoom_args=zoom,
        settings=settings(tmp_path, sample2col={"signal": 3, "Z + jets": 0, "top pairs": 1}),
    )
    data = [patch.get_data() for patch in figure.axes[0].patches]
    assert data[1].values.sum() == pytest.approx(df["gen_weight"][df["gen_target"] == 0].sum())
    assert np.array_equal(data[1].baseline, data[0].values)
    assert (tmp_path / "sample.png").exists()


def test_histories_have_a_line_for_each_model(tmp_path):
    curve = 1 / np.arange(1, 21)
    told = [
        {"losses": {"Training": curve + 0.1 * k, "Validation": 1.1 * curve}, "metrics": {"RocAuc": 1 - curve}}
        for k in range(3)
    ]
    figure = plot_train_history(told, "history", settings=settings(tmp_path), log_y=True)
    assert [len(axes.lines) for axes in figure.axes] == [6, 3]
    figure = plot_train_history({"train": curve, "valid": curve}, ignore_trn=True, settings=settings())
    assert len(figure.axes[0].lines) == 1
    with pytest.raises(InputError, match="`histories` must hold losses"):
        plot_train_history({"losses": {}}, settings=settings())


def test_importance_has_the_largest_on_top(tmp_path):
    table = {"Feature": ["a", "b", "c"], "Importance": [0.1, 0.5, -0.01], "Uncertainty": [0.02, 0.04, 0.01]}
    figure = plot_feat_importance(table, savename="importance", threshold=0.05, settings=settings(tmp_path))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
    with pytest.raises(InputError, match=r"\['Importance'\]"):
        plot_feat_importance({"Feature": ["a"], "Uncertainty": [1]})


def test_embeddings_show_their_numbers(tmp_path):
    figure = plot_embedding(
        "jets", np.array([[1.04, -2.0], [0.3, 0.0]]), "emb", settings(tmp_path), names=["one", "two"]
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.0", "-2.0", "0.3", "0.0"]


def test_pictures_can_be_drawn_from_pandas():
    pandas = pytest.importorskip("pandas")
    plot_roc(pandas.DataFrame(predictions()), n_bootstrap=5, settings=settings())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot_roc(predictions(), pred_name="prd"), InputError, "column 'prd'.*Did you mean 'pred'"),
        (lambda: plot_roc({"pred": [1.0], "gen_target": [1]}), InputError, "got 1 of 1 signal"),
        (lambda: plot_roc([predictions()], labels=["a", "b"]), ShapeError, "one for each of 1 tables"),
        (lambda: plot_binary_class_pred({"pred": [np.nan], "gen_target": [1]}), InputError, "'pred' must be finite"),
        (lambda: plot_sample_pred({"pred": [0.1], "gen_target": [1], "gen_weight": [1]}), InputError, "'gen_sample'"),
        (
            lambda: plot_roc(predictions(), savename="x", n_bootstrap=0, settings=PlotSettings(format="doc")),
            InputError,
            "`format` must be one of",
        ),
    ],
)
def test_bad_tables_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plot_binary_class_pred(predictions(), settings=settings())
    assert dict(mpl.rcParams) == before
