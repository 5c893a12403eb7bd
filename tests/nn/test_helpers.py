"""Sizes of embeddings, and what an objective means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffdet.core.errors import InputError
from diffdet.nn.models.helpers import CatEmbedder, read_objective
from nn.numeric_cases import Case


class Table:
    """Columns by name, as a fold yielder shows them."""

    def __init__(self, **columns):
        self.columns = columns

    def get_use_cat_feats(self):
        return list(self.columns)

    def get_column(self, column):
        return self.columns[column]


def test_reference_sizes(shared_dir):
    entry = Case.load(shared_dir, "CatEmbedder.sizes").entry
    names = [f"c{k}" for k in range(len(entry["cat_szs"]))]
    assert CatEmbedder(names, entry["cat_szs"]).emb_szs == entry["emb_szs"]
    assert CatEmbedder(names, entry["cat_szs"], max_emb_sz=10).emb_szs == entry["max_10"]


def test_looking_up_and_iterating():
    embedder = CatEmbedder(["charge", "flavour"], [3, 7], emb_load_path="folder")
    assert list(embedder) == [("charge", 3, 2), ("flavour", 7, 4)]
    assert embedder[1] == embedder["flavour"] == (7, 4)
    assert embedder.n_cat_in == len(embedder) == 2
    assert embedder.emb_load_path == Path("folder")
    assert "charge: 3 -> 2" in repr(embedder)
    with pytest.raises(InputError, match=r"no categorical feature 'flavor'.*Did you mean 'flavour'"):
        embedder["flavor"]
    with pytest.raises(IndexError):
        embedder[2]


def test_given_widths_are_taken():
    assert CatEmbedder(["a", "b"], [3, 100], emb_szs=[1, 9]).emb_szs == [1, 9]


def test_no_feature_is_a_size_too():
    embedder = CatEmbedder([], [])
    assert list(embedder) == []
    assert embedder.n_cat_in == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cat_szs": [3]}, "`cat_szs` must have one number for each of the 2 `cat_names`; got 1"),
        ({"cat_szs": [3, 4], "emb_szs": [1]}, "`emb_szs` must have one number for each of the 2 `cat_names`; got 1"),
        ({"cat_szs": [3, 0]}, "`cat_szs` must be at least 1; got 0 for 'b'"),
        ({"cat_szs": [3, 4], "emb_szs": [0, 2]}, "`emb_szs` must be at least 1; got 0 for 'a'"),
        ({"cat_szs": [3, 4], "max_emb_sz": 0}, "`max_emb_sz` must be at least 1; got 0"),
        ({"cat_names": ["a", "a"], "cat_szs": [3, 4]}, "`cat_names` must name every feature once; got 'a' more than"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError) as raised:
        CatEmbedder(**{"cat_names": ["a", "b"], **arguments})
    assert message in str(raised.value)


def test_sizes_from_data():
    embedder = CatEmbedder.from_fy(Table(a=np.array([0, 2, 1]), b=np.array([0.0, 6.0])), max_emb_sz=3)
    assert list(embedder) == [("a", 3, 2), ("b", 7, 3)]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ([0, np.nan, 1], "1 of 3 values are not, the first is nan"),
        ([0, -1, -2], "2 of 3 values are not, the first is -1"),
        ([0.5], "1 of 1 values are not, the first is 0.5"),
        ([], "must have values; got an empty column"),
    ],
)
def test_what_is_no_code_is_refused(column, told):
    with pytest.raises(InputError, match="categorical feature 'a'") as raised:
        CatEmbedder.from_fy(Table(a=np.array(column)))
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("classification", "classification"),
        ("Classification", "classification"),
        ("class", "classification"),
        ("multiclass", "multiclass"),
        ("multiclassifier", "multiclass"),
        ("multi-label classification", "classification"),
        ("regression", "regression"),
        ("REGRESSOR", "regression"),
    ],
)
def test_objectives(text, meaning):
    assert read_objective(text) == meaning


@pytest.mark.parametrize(
    ("text", "meant"),
    [("binary", "classification"), ("regresion", "regression"), ("", None), (None, None)],
)
def test_unknown_objectives_are_refused(text, meant):
    with pytest.raises(
        InputError, match="`objective` must be one of 'classification', 'multiclass', 'regression'"
    ) as e:
        read_objective(text)
    assert (f"Did you mean {meant!r}?" in str(e.value)) == bool(meant)
