"""Heads of every kind on events of five objects with four-momenta, and events for them."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from diffdet.nn.models.blocks import gnn_blocks
from diffdet.nn.models.blocks.head import (
    AbsConv1dHead,
    AutoExtractLorentzBoostNet,
    CatEmbHead,
    GNNHead,
    InteractionNet,
    LorentzBoostNet,
    MultiHead,
    RecurrentHead,
)
from diffdet.nn.models.helpers import CatEmbedder

VECS = ["a", "b", "c", "d", "e"]
FEATS = ["px", "py", "pz", "E"]


def columns(vecs=VECS):
    """Names of the columns, objects in order."""
    return [f"{vec}_{feat}" for vec in vecs for feat in FEATS]


class Convolutions(AbsConv1dHead):
    """A small network with every kind of block; a last pool is optional."""

    def get_layers(self, in_c, act="relu", bn=False, pool=True, **kargs):
        layers = [
            self.get_conv1d_block(in_c, 6, 3, act=act, bn=bn),
            self.get_conv1d_block(6, 6, 2, act="sigmoid", bn=bn),
            self.get_conv1d_res_block(6, 8, 3, stride=2, act=act, bn=bn),
            self.get_conv1d_resNeXt_block(8, 2, 3, 6, 3, act=act, bn=bn),
        ]
        return nn.Sequential(*layers, *([nn.AdaptiveAvgPool1d(1)] if pool else []))


INET = partial(
    InteractionNet,
    intfunc_depth=2,
    intfunc_width=7,
    intfunc_out_sz=4,
    outfunc_depth=2,
    outfunc_width=6,
    outfunc_out_sz=3,
    act="swish",
)
GRAV = partial(gnn_blocks.GravNet, cat_means=True, f_slr_depth=2, n_s=3, n_lr=4, k=3, f_out_depth=2, n_out=[5, 4])
PAIRS = partial(gnn_blocks.InteractionNet, intfunc_outs=[6, 3], outfunc_outs=[5, 4], act="swish")
COLLAPSE = partial(gnn_blocks.GraphCollapser, flatten=False)
RICH = partial(
    gnn_blocks.GraphCollapser,
    flatten=False,
    f_initial_outs=[6],
    n_sa_layers=2,
    sa_width=3,
    f_final_outs=[5, 3],
    global_feat_vec=True,
    agg_methods=["sum", "mean", "max", "absmax"],
    act="mish",
)

# name -> (what makes the head, whether its weights fit any number of objects)
MATRIX_HEADS = {
    "inet": (partial(INET, agg_method="sum"), True),
    "inet bn": (partial(INET, agg_method="sum", bn=True), True),
    "inet flat": (partial(INET, agg_method="flatten"), True),
    "rnn": (partial(RecurrentHead, depth=2, width=4), True),
    "rnn relu": (partial(RecurrentHead, depth=1, width=4, act="relu", bidirectional=True), True),
    "gru": (partial(RecurrentHead, depth=2, width=4, rnn=nn.GRU, bidirectional=True), True),
    "lstm": (partial(RecurrentHead, depth=2, width=4, rnn=nn.LSTM, bidirectional=True), True),
    "lstm states": (partial(RecurrentHead, depth=1, width=4, rnn=nn.LSTM, stateful=True), True),
    "conv": (partial(Convolutions, act="swish", bn=True), True),
    "conv flat": (partial(Convolutions, layer_kargs={"pool": False}), True),
    "lbn": (partial(LorentzBoostNet, n_particles=3), False),
    "lbn plain": (partial(LorentzBoostNet, n_particles=3, bn=False), False),
    "aelbn": (partial(AutoExtractLorentzBoostNet, n_particles=3, depth=2, width=5, n_singles=2, n_pairs=3), False),
    "gnn pairs": (partial(GNNHead, extractor=PAIRS, collapser=RICH, use_in_bn=True, cat_means=True), True),
    "gnn grav": (partial(GNNHead, extractor=partial(GRAV, bn=True), collapser=COLLAPSE), True),
    "gnn sa": (
        partial(GNNHead, extractor=partial(GRAV, use_sa=True, agg_methods=["absmax", "sum"]), collapser=COLLAPSE),
        True,
    ),
    "gnn flat": (
        partial(GNNHead, extractor=GRAV, collapser=partial(gnn_blocks.GraphCollapser, flatten=True)),
        True,
    ),
}
OVER_OBJECTS = ("inet flat", "lstm states", "conv flat", "gnn flat")
"""Heads whose output has a part for each object."""


def embedder():
    return CatEmbedder(["colour", "shape"], [4, 3])


def matrix_head(name, vecs=VECS, **more):
    """A head of `MATRIX_HEADS`, evaluating."""
    return MATRIX_HEADS[name][0](cont_feats=columns(vecs), vecs=vecs, feats_per_vec=FEATS, **more).eval()


def cat_head(**more):
    return CatEmbHead(["met", "ht"], cat_embedder=embedder(), **more).eval()


def multi_head(matrix=None, **more):
    """Flat features among those of objects, and categories."""
    matrix = partial(INET, agg_method="sum", vecs=VECS, feats_per_vec=FEATS) if matrix is None else matrix
    names = ["met", *columns()[:7], "ht", *columns()[7:]]
    return MultiHead(names, matrix, cat_embedder=embedder(), **more).eval()


def events(batch, dtype=torch.float32, seed=0, objects=5):
    """Massive particles, (batch, objects, 4)."""
    momentum = torch.randn(batch, objects, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return torch.cat([momentum, (0.3 + momentum.square().sum(-1, keepdim=True)).sqrt()], -1)


def masks(batch, seed=0):
    """Masks of objects; the first event has none, the second all."""
    found = torch.rand(batch, len(VECS), generator=torch.Generator().manual_seed(seed)) > 0.4
    found[0], found[1] = False, True
    return found


def in_layout(head, objects):
    """Events in the layout of a head."""
    return objects if head.row_wise else objects.transpose(1, 2)


def taught(head, *, training=False):
    """A head whose batch norms have seen something."""
    head.train()
    for seed in range(3):
        head(in_layout(head, events(32, next(head.parameters()).dtype, seed)))
    return head.train(training)


def multi_input(batch, dtype=torch.float32, seed=0):
    """Flat input of `multi_head`, the same as (flat, matrix), and the mask."""
    objects = events(batch, dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(batch, 2, dtype=dtype, generator=generator)
    codes = torch.stack([torch.randint(n, (batch,), generator=generator) for n in (4, 3)], 1).to(dtype)
    cells = objects.flatten(1)
    together = torch.cat([flat[:, :1], cells[:, :7], flat[:, 1:], cells[:, 7:], codes], 1)
    return together, (torch.cat([flat, codes], 1), objects.transpose(1, 2)), masks(max(batch, 2), seed)[:batch]
