"""Blocks give the reference numbers with the reference weights, under the original names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffdet.nn.models.blocks.body import FullyConnected, MultiBlock
from diffdet.nn.models.blocks.conv_blocks import Conv1DBlock, Res1DBlock, ResNeXt1DBlock
from diffdet.nn.models.blocks.endcap import AbsEndcap
from diffdet.nn.models.blocks.tail import ClassRegMulti
from diffdet.nn.models.layers.self_attention import SelfAttention
from nn.numeric_cases import Case


@pytest.mark.parametrize(
    "name", ["FullyConnected.plain.growth_neg", "FullyConnected.res.bn_false", "FullyConnected.dense.growth_selu"]
)
def test_fully_connected(shared_dir, name):
    Case.load(shared_dir, name).check(FullyConnected, feat_map={})


def test_multi_block(shared_dir):
    case = Case.load(shared_dir, "MultiBlock.bottleneck2_swish")
    body = case.check(MultiBlock)
    assert body.masks == case.entry["masks"]
    assert body.bottleneck_masks == case.entry["bottleneck_masks"]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("Conv1DBlock.k3s2", Conv1DBlock),
        ("Res1DBlock.stride2", Res1DBlock),
        ("ResNeXt1DBlock.same", ResNeXt1DBlock),
        ("ClassRegMulti.binary", ClassRegMulti),
        ("ClassRegMulti.regression_yrange_matrix", ClassRegMulti),
        ("SelfAttention", SelfAttention),
    ],
)
def test_block(shared_dir, name, block):
    Case.load(shared_dir, name).check(block)


class SquarePlusOne(AbsEndcap):
    def func(self, x: Tensor) -> Tensor:
        return x.square() + 1


class Doubles:
    def predict(self, inputs, as_np=True):
        assert not as_np
        return 2 * inputs


def test_endcap(shared_dir):
    case = Case.load(shared_dir, "AbsEndcap")
    endcap = SquarePlusOne(Doubles())
    x = case.input(torch.float64)
    assert endcap(x).tolist() == case.entry["forward"]
    assert endcap.predict(x).tolist() == case.entry["predict_np"]


def test_widths_of_fully_connected(shared_dir):
    for row in Case.load(shared_dir, "FullyConnected.widths").entry["table"]:
        body = FullyConnected(feat_map={}, **row["args"])
        shapes = [list(m.weight.shape) for m in body.modules() if isinstance(m, torch.nn.Linear)]
        assert shapes == row["linear_shapes_[out,in]"], row["args"]
        assert body.get_out_size() == row["out_size"]
        assert body.get_param_count() == row["n_params"]
