"""Heads for `nn.py`, made by the same lines from either package: documented names only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

FEATS = ["px", "py", "pz", "E"]


class Package:
    """The classes of one package that the benchmark drives.

    Args:
        root: Name of the package that holds `models.blocks`.
        interaction: Name of the class that is documented as the head `InteractionNet`.
    """

    def __init__(self, root: str, interaction: str = "InteractionNet") -> None:
        self.head = import_module(f"{root}.models.blocks.head")
        self.graph = import_module(f"{root}.models.blocks.gnn_blocks")
        self.cat_embedder = import_module(f"{root}.models.helpers").CatEmbedder
        self.interaction = getattr(self.head, interaction)


def interaction(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    return package.interaction(
        cont_feats=names, **objects, intfunc_depth=2, intfunc_width=width, intfunc_out_sz=8,
        outfunc_depth=2, outfunc_width=width, outfunc_out_sz=8, agg_method="sum",
    )  # fmt: skip


def convolution(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    class Net(package.head.AbsConv1dHead):
        def get_layers(self, in_c: int, act: str = "relu", bn: bool = False, **_: Any) -> nn.Module:
            return nn.Sequential(
                self.get_conv1d_block(in_c, width, kernel_sz=3, act=act, bn=bn),
                self.get_conv1d_res_block(width, width, kernel_sz=3, act=act, bn=bn),
                self.get_conv1d_resNeXt_block(width, 4, 4, width, kernel_sz=3, stride=2, act=act, bn=bn),
                nn.AdaptiveAvgPool1d(1),
            )

    return Net(cont_feats=names, **objects, act="relu", bn=True)


def recurrent(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    return package.head.RecurrentHead(
        cont_feats=names, **objects, depth=2, width=width, rnn=nn.GRU, bidirectional=True
    )  # fmt: skip


def boosts(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    return package.head.LorentzBoostNet(cont_feats=names, **objects, n_particles=width)


def learned_boosts(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    return package.head.AutoExtractLorentzBoostNet(
        cont_feats=names, **objects, n_particles=width, depth=2, width=16, n_singles=4, n_pairs=4
    )  # fmt: skip


def gravnet(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    extractor = partial(
        package.graph.GravNet, cat_means=True, f_slr_depth=2, n_s=4, n_lr=8, k=10, f_out_depth=2, n_out=[width, width]
    )
    collapser = partial(package.graph.GraphCollapser, flatten=False)
    return package.head.GNNHead(cont_feats=names, **objects, extractor=extractor, collapser=collapser)


def categories(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:  # noqa: ARG001
    embedder = package.cat_embedder([f"c{k}" for k in range(8)], [20] * 8)
    return package.head.CatEmbHead([f"x{k}" for k in range(width)], cat_embedder=embedder)


def multi(package: Package, objects: dict[str, Any], names: list[str], width: int) -> nn.Module:
    matrix = partial(
        package.interaction, **objects, intfunc_depth=2, intfunc_width=width, intfunc_out_sz=8,
        outfunc_depth=2, outfunc_width=width, outfunc_out_sz=8, agg_method="sum",
    )  # fmt: skip
    embedder = package.cat_embedder([f"c{k}" for k in range(8)], [20] * 8)
    flat = [f"x{k}" for k in range(width)]
    return package.head.MultiHead([*flat, *names], matrix_head=matrix, cat_embedder=embedder)


# label -> (what makes it, objects, width, events a batch)
Maker = Callable[[Package, dict[str, Any], list[str], int], nn.Module]
HEADS: dict[str, tuple[Maker, int, int, int]] = {
    "CatEmbHead": (categories, 1, 20, 2048),
    "MultiHead, V = 10": (multi, 10, 32, 1024),
    "InteractionNet, V = 10": (interaction, 10, 32, 1024),
    "InteractionNet, V = 32": (interaction, 32, 32, 256),
    "InteractionNet, V = 128": (interaction, 128, 16, 64),
    "RecurrentHead, GRU, V = 10": (recurrent, 10, 32, 1024),
    "AbsConv1dHead, V = 10": (convolution, 10, 32, 1024),
    "LorentzBoostNet, V = 10": (boosts, 10, 10, 1024),
    "AutoExtractLorentzBoostNet, V = 10": (learned_boosts, 10, 10, 1024),
    "GNNHead with GravNet, V = 64": (gravnet, 64, 16, 32),
}


def make(package: Package, label: str) -> tuple[nn.Module, torch.Tensor]:
    """A head in training, with a batch for it.

    Args:
        package: Whose classes.
        label: A key of `HEADS`.

    Returns:
        The head, and flat input.
    """
    maker, n_objects, width, batch = HEADS[label]
    objects = {"vecs": [f"v{k}" for k in range(n_objects)], "feats_per_vec": FEATS}
    names = [f"{vec}_{feat}" for vec in objects["vecs"] for feat in FEATS]
    torch.manual_seed(0)
    head = maker(package, objects, names, width)
    momenta = torch.randn(batch, n_objects, 3)
    energies = (0.1 + momenta.square().sum(-1, keepdim=True)).sqrt()
    parts = [torch.cat([momenta, energies], -1).flatten(1)]
    if maker in (categories, multi):
        parts = [torch.randn(batch, width), *(parts if maker is multi else []), torch.randint(20, (batch, 8)).float()]
    return head.train(), torch.cat(parts, 1)
