"""Heads: from raw input to a flat row of features an event. This is the table of contents of `_head/`.

| head | input | layout of its matrix |
|---|---|---|
| `CatEmbHead` | flat columns, categorical ones embedded | |
| `MultiHead` | flat columns and objects: one head each | that of its matrix head |
| `InteractionNet` | objects that all hear each other | (B, P, V) |
| `RecurrentHead` | objects as a sequence | (B, V, P) |
| `AbsConv1dHead` | objects as columns of a picture | (B, P, V) |
| `LorentzBoostNet`, `AutoExtractLorentzBoostNet` | four-momenta | (B, V, 4) |
| `GNNHead` | objects, through blocks of `gnn_blocks` | that of its extractor |

Every head is an ordinary module: ``head(x, mask=None)``. ``mask`` (B, V) is true where an object is present; an absent
object is as if it were not there. ``head.feat_map`` says which output columns a feature influences, and
``head.get_out_size()`` how many there are.
"""

from diffdet.nn.models.blocks._head.base import AbsHead
from diffdet.nn.models.blocks._head.categorical import CatEmbHead
from diffdet.nn.models.blocks._head.conv import AbsConv1dHead
from diffdet.nn.models.blocks._head.gnn import GNNHead
from diffdet.nn.models.blocks._head.graph import InteractionNet
from diffdet.nn.models.blocks._head.lorentz import AutoExtractLorentzBoostNet, LorentzBoostNet
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.blocks._head.multi import MultiHead
from diffdet.nn.models.blocks._head.recurrent import RecurrentHead

__all__ = [
    "AbsConv1dHead",
    "AbsHead",
    "AbsMatrixHead",
    "AutoExtractLorentzBoostNet",
    "CatEmbHead",
    "GNNHead",
    "InteractionNet",
    "LorentzBoostNet",
    "MultiHead",
    "RecurrentHead",
]
