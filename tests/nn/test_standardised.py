"""Heads behind fixed scales: networks that take inputs as they are measured."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.head import CatEmbHead, InteractionNet, MultiHead, RecurrentHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from diffdet.nn.models.standardised import StandardisedHead

VECS, FEATS = ["j0", "j1", "j2"], ["pt", "eta"]
CELLS = [f"{vec}_{feat}" for vec in VECS for feat in FEATS]
INTERACTION = {
    "vecs": VECS,
    "feats_per_vec": FEATS,
    "agg_method": "sum",
    "intfunc_depth": 1,
    "intfunc_width": 4,
    "intfunc_out_sz": 3,
    "outfunc_depth": 1,
    "outfunc_width": 4,
    "outfunc_out_sz": 3,
}
SCALES = {"met": (50.0, 20.0), "pt": (40.0, 10.0), "j2_pt": (20.0, 5.0)}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_flat_features_are_scaled_and_categories_are_not():
    embedder = CatEmbedder(["n"], [3])
    head = StandardisedHead(["met", "ht"], {"met": (50.0, 20.0)}, cat_embedder=embedder)
    x = torch.tensor([[70.0, 3.0, 2.0], [30.0, -1.0, 0.0]])
    scaled = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -1.0, 0.0]])
    torch.testing.assert_close(head(x), head.head(scaled))
    assert head.feat_map == head.head.feat_map
    assert head.get_out_size() == 2 + 2
    assert all(key.startswith("head.") for key in head.state_dict())


@pytest.mark.parametrize("inner", ["column-wise", "row-wise"])
def test_objects_are_scaled_in_the_layout_of_their_head(inner):
    made = partial(InteractionNet, **INTERACTION)
    if inner == "row-wise":
        made = partial(RecurrentHead, vecs=VECS, feats_per_vec=FEATS, depth=1, width=3)
    head = StandardisedHead(CELLS, {"pt": (40.0, 10.0)}, made)
    rows = draw(5, 3, 2) * torch.tensor([10.0, 1.0]) + torch.tensor([40.0, 0.0])
    scaled = (rows - torch.tensor([40.0, 0.0])) / torch.tensor([10.0, 1.0])
    if inner == "column-wise":
        rows, scaled = rows.mT, scaled.mT
    expected = head.head(scaled)
    torch.testing.assert_close(head(rows), expected)
    flat = rows.mT if inner == "column-wise" else rows
    torch.testing.assert_close(head(flat.reshape(5, 6)), expected)


def test_pairs_and_flat_columns_agree_and_masked_equals_absent():
    head = StandardisedHead(
        ["met", *CELLS], SCALES | {}, partial(MultiHead, matrix_head=partial(InteractionNet, **INTERACTION))
    )
    flat, matrix = 50 + 20 * draw(4, 1), 40 + 10 * draw(4, 2, 3, seed=1)
    mask = torch.tensor([[True, True, False]] * 4)
    other = matrix.clone()
    other[:, :, 2] = 1e6
    torch.testing.assert_close(head((flat, matrix), mask=mask), head((flat, other), mask=mask))
    plain = {name: scale for name, scale in SCALES.items() if name != "j2_pt"}
    head = StandardisedHead(
        ["met", *CELLS], plain, partial(MultiHead, matrix_head=partial(InteractionNet, **INTERACTION))
    )
    columns = torch.cat([flat, matrix.mT.reshape(4, 6)], 1)
    torch.testing.assert_close(head(columns, mask=mask), head((flat, matrix), mask=mask))


def test_scales_must_belong_to_features():
    with pytest.raises(InputError, match=r"`scales` must name features; got 'mett'. Did you mean 'met'"):
        StandardisedHead(["met"], {"mett": (0.0, 1.0)})
    with pytest.raises(InputError, match="must be greater than 0"):
        StandardisedHead(["met"], {"met": (0.0, 0.0)})


def test_a_described_model_keeps_its_scales(tmp_path):
    described = ModelBuilder(
        "regression",
        1,
        ["met", "ht"],
        {"body": {"depth": 1, "width": 3}},
        head=partial(StandardisedHead, scales={"met": (50.0, 20.0)}, head=CatEmbHead),
        seed=0,
    )
    described.save(tmp_path / "b.json")
    x = draw(4, 2).numpy()
    first, second = Model(described), Model(ModelBuilder.load(tmp_path / "b.json"))
    assert (first.predict(x) == second.predict(x)).all()
    assert "inputs: 2 cont" in repr(first)
