"""Heads and graph blocks give the reference numbers with the reference weights, under the original names."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from diffdet.nn.models.blocks import gnn_blocks, head
from diffdet.nn.models.blocks.head import (
    AbsConv1dHead,
    AbsMatrixHead,
    AutoExtractLorentzBoostNet,
    CatEmbHead,
    GNNHead,
    InteractionNet,
    LorentzBoostNet,
    MultiHead,
    RecurrentHead,
)
from nn.numeric_cases import TOLERANCE, Case

BOOST = {torch.float64: 1e-8, torch.float32: 2e-5}
"""The reference adds 1e-10 here and there in the boost, which makes a difference of 1e-9."""


class Matrix(AbsMatrixHead):
    """Gives the matrix itself."""

    def __init__(self, *args, **kargs):
        super().__init__(*args, **kargs)
        self._map_outputs()

    def get_out_size(self):
        return self.n_v * self.n_fpv

    def forward(self, x, mask=None):
        return self.get_matrix(x, mask)


class Small(AbsConv1dHead):
    """The network of the case `AbsConv1dHead.small`."""

    def get_layers(self, in_c, act="relu", bn=False, **kargs):
        return nn.Sequential(
            self.get_conv1d_block(in_c, 4, 3, act="linear"),
            self.get_conv1d_res_block(4, 4, 3, act=act, bn=bn),
            self.get_conv1d_resNeXt_block(4, 2, 2, 5, 3, stride=2, act=act, bn=bn),
            nn.AdaptiveAvgPool1d(1),
        )


def test_cat_emb_head(shared_dir):
    Case.load(shared_dir, "CatEmbHead.cat").check(CatEmbHead)


def test_matrix_from_scrambled_columns_with_one_missing(shared_dir):
    case = Case.load(shared_dir, "AbsMatrixHead.row_wise_True")
    matrix = case.check(Matrix)
    assert matrix.missing.flatten().tolist() == case.entry["missing"]
    there = [found for found, missing in zip(matrix.lookup.tolist(), case.entry["missing"], strict=True) if not missing]
    assert there == [k for k, missing in zip(case.entry["lookup"], case.entry["missing"], strict=True) if not missing]


def test_interaction_net_sees_all_pairs(shared_dir):
    Case.load(shared_dir, "InteractionNet.flatten").check(InteractionNet, key="correct_complete_graph_output")


def test_interaction_net_on_the_ring_of_the_older_package(shared_dir):
    Case.load(shared_dir, "InteractionNet.flatten").check(InteractionNet, legacy_ring=True)


@pytest.mark.parametrize("name", ["RecurrentHead.rnn_tanh", "RecurrentHead.lstm"])
def test_recurrent_head(shared_dir, name):
    Case.load(shared_dir, name).check(RecurrentHead)


def test_weights_that_a_recurrent_head_starts_with(shared_dir):
    entry = Case.load(shared_dir, "RecurrentHead.init").entry
    names = [f"j{v}_{f}" for v in range(3) for f in ("pt", "eta", "phi")]
    for rnn, label in ((nn.LSTM, "lstm"), (nn.GRU, "gru")):
        made = RecurrentHead(names, ["j0", "j1", "j2"], ["pt", "eta", "phi"], 1, 2, rnn=rnn).rnn
        assert made.bias_ih_l0.tolist() == entry[f"{label}_bias_ih"]
        assert made.bias_hh_l0.tolist() == entry[f"{label}_bias_hh"]
        for gate in made.weight_hh_l0.split(2):
            torch.testing.assert_close(gate @ gate.T, torch.eye(2), rtol=0, atol=1e-6)
        columns = made.weight_ih_l0
        torch.testing.assert_close(columns.T @ columns, torch.eye(3), rtol=0, atol=1e-6)


def test_conv_head(shared_dir):
    Case.load(shared_dir, "AbsConv1dHead.small").check(Small)


def test_lorentz_boost_net(shared_dir):
    case = Case.load(shared_dir, "LorentzBoostNet.default.no_bn")
    net = case.check(LorentzBoostNet, tolerance=BOOST)
    boosted = torch.tensor(case.entry["boosted_particles"], dtype=torch.float64)
    torch.testing.assert_close(net.boosted(case.input(torch.float64)), boosted, rtol=0, atol=1e-8)


def test_auto_extract_lorentz_boost_net(shared_dir):
    case = Case.load(shared_dir, "AutoExtractLorentzBoostNet")
    net = case.check(AutoExtractLorentzBoostNet, tolerance=BOOST)
    assert net.comb.tolist() == case.entry["pairs"]


def test_multi_head(shared_dir):
    # two objects make two pairs, in a ring, too
    case = Case.load(shared_dir, "MultiHead.flat_input")
    multi = case.check(MultiHead, classes={"InteractionNet": InteractionNet})
    assert multi.flat_lookup.tolist() == case.entry["flat_lookup"]
    assert multi.matrix_lookup.tolist() == case.entry["matrix_lookup"]
    assert [*multi.cont_feats, *multi.cat_feats] == case.entry["flat_feats"]
    assert multi.matrix_feats == case.entry["matrix_feats"]


def test_interaction_net_as_graph_block(shared_dir):
    case = Case.load(shared_dir, "gnn.InteractionNet")
    size = case.entry["get_out_size"]
    without = Case(case.name, {k: v for k, v in case.entry.items() if k != "get_out_size"})
    block = without.check(gnn_blocks.InteractionNet, legacy_ring=True)
    assert list(block.get_out_size()) == size


def test_grav_net(shared_dir):
    case = Case.load(shared_dir, "gnn.GravNet")
    size = case.entry["get_out_size"]
    without = Case(case.name, {k: v for k, v in case.entry.items() if k != "get_out_size"})
    assert list(without.check(gnn_blocks.GravNet).get_out_size()) == size


def test_gnn_head(shared_dir):
    ring = partial(gnn_blocks.InteractionNet, legacy_ring=True)
    classes = {"gnn.InteractionNet": ring, "GraphCollapser": gnn_blocks.GraphCollapser}
    Case.load(shared_dir, "GNNHead.inet_bn_means").check(GNNHead, classes=classes)


def test_every_case_of_a_head_is_compared(shared_dir):
    cases = json.loads((shared_dir / "spec" / "nn-numeric-cases.json").read_text())["cases"]
    heads = {name for name in cases if name.split(".")[0] in {*head.__all__, "gnn"}}
    source = Path(__file__).read_text()
    assert all(name in source for name in heads), heads
    assert TOLERANCE[torch.float64] == 1e-9
