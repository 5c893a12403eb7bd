"""Scaling and coding: limits, round trips, JSON, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from diffdet.core.errors import FileDamagedError, InputError, ShapeError, StorageError
from diffdet.nn.data.preprocessing import Scaler, fit_input_pipe, fit_output_pipe, get_pre_proc_pipes, proc_cats


def features(n=500):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, 3)) @ np.array([[1, 2, 0], [0, 1, 0.5], [0, 0, 3]]) + [5, -2, 100]
    return x.astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"pca": True}, {"pca": True, "whiten": True}, {"with_std": False}])
def test_scaling_leads_back_and_survives_json(tmp_path, options):
    x = features()
    scaler = Scaler(**options)
    z = scaler.fit_transform(x)
    assert z.dtype == np.float32
    assert np.allclose(z.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(scaler.inverse_transform(z), x, rtol=1e-4, atol=1e-4)
    scaler.save(tmp_path / "scaler.json")
    assert np.array_equal(Scaler.load(tmp_path / "scaler.json").transform(x), z)
    if options.get("pca"):
        covariance = np.cov(z.T.astype(float))
        assert np.allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-4)
        assert (np.diff(np.diag(covariance)) < 1e-2).all()
    if options.get("whiten") or not options:
        assert np.allclose(z.std(axis=0), 1, atol=1e-3)


def test_components_can_be_fewer():
    x = features()
    scaler = get_pre_proc_pipes(pca=True, n_components=2)[0]
    z = scaler.fit_transform(x)
    assert z.shape == (500, 2)
    assert scaler.inverse_transform(z).shape == x.shape


def test_what_does_not_exist_is_left_out_and_stays():
    x = np.array([[1.0, 5], [3, np.nan], [np.nan, 7]])
    scaler = Scaler().fit(x)
    assert scaler.mean.tolist() == [2, 6]
    assert np.array_equal(np.isnan(scaler.transform(x)), np.isnan(x))
    matrix, mask = np.zeros((2, 2, 1)), np.array([[True, False], [True, False]])
    matrix[:, 0, 0], matrix[:, 1, 0] = [1, 3], 100
    assert Scaler().fit(matrix, mask=mask).mean.tolist() == [2]


def test_weights_count_and_constants_are_shifted_only():
    x = np.array([[0.0, 7.0], [1.0, 7.0]])
    scaler = Scaler().fit(x, weights=[1, 3])
    assert scaler.mean.tolist() == [0.75, 7]
    assert scaler.transform(x)[:, 1].tolist() == [0, 0]


def test_pipes_of_tables(tmp_path):
    df = {"a": np.arange(5.0), "b": np.arange(5.0) * 2, "t": np.arange(5.0) - 7}
    pipe = fit_input_pipe(df, ["a", "b"], tmp_path / "in")
    assert Scaler.load(tmp_path / "in.json").to_dict() == pipe.to_dict()
    assert fit_output_pipe(df, "t").mean.tolist() == [-5]
    with pytest.raises(InputError, match="'aa' is none"):
        fit_input_pipe(df, ["aa"])


def test_bad_scalers_are_refused(tmp_path):
    with pytest.raises(InputError, match="call `fit`"):
        Scaler().transform(features())
    with pytest.raises(ShapeError, match="must have 3 features along its last axis; got 2"):
        Scaler().fit(features()).transform(np.zeros((4, 2)))
    with pytest.raises(InputError, match="feature 1 has none"):
        Scaler().fit(np.array([[1, np.nan]]))
    with pytest.raises(InputError, match="infinite"):
        Scaler().fit(np.array([[1, np.inf]]))
    with pytest.raises(InputError, match="`pca=True`"):
        Scaler(whiten=True)
    with pytest.raises(StorageError, match="check the path"):
        Scaler.load(tmp_path / "none.json")
    for text in ("{", '{"mean": [1]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FileDamagedError, match="must hold a scaler"):
            Scaler.load(tmp_path / "bad.json")


@pytest.mark.parametrize("kind", ["dict", "pandas"])
def test_charges_keep_their_codes(kind):
    """-1, 0 and 1 are three categories; replaced one after the other they would end as one."""
    tables = [{"charge": np.array([-1, 0, 1, 0, -1])}, {"charge": np.array([1, -1])}]
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        tables = [pandas.DataFrame(table) for table in tables]
    maps, sizes = proc_cats(tables[0], ["charge"], val_df=tables[1])
    assert list(tables[0]["charge"]) == [0, 1, 2, 1, 0]
    assert list(tables[1]["charge"]) == [2, 0]
    assert maps == {"charge": {0: -1, 1: 0, 2: 1}}
    assert sizes == {"charge": 3}


def test_words_become_codes():
    df = {"channel": np.array(["mm", "ee", "mm"])}
    assert proc_cats(df, ["channel"])[0] == {"channel": {0: "ee", 1: "mm"}}
    assert df["channel"].tolist() == [1, 0, 1]


def test_bad_categories_are_refused_and_nothing_is_changed():
    df = {"a": np.array([5, 7]), "b": np.array([1.0, np.nan])}
    with pytest.raises(InputError, match=r"category `b` of `train_df` .* 1 of 2 are NaN, the first in row 1"):
        proc_cats(df, ["a", "b"])
    assert df["a"].tolist() == [5, 7]
    with pytest.raises(InputError, match=r"category `a` of `test_df` must only have values of `train_df`; got \['6'\]"):
        proc_cats(df, ["a"], test_df={"a": np.array([5, 6])})
    with pytest.raises(InputError, match="'aa' is none"):
        proc_cats(df, ["aa"])
