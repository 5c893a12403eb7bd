"""Graph blocks: parts of `GNNHead`, usable alone. This is the table of contents of `_graph/`.

Extractors give every object new features: `InteractionNet`, `GravNetLayer`, `GravNet`. Collapsers come after one and
make a row of features an event, `GraphCollapser`, or a prediction an object, `NodePredictor`. All take an optional mask
(B, V) of the objects that are present.
"""

from diffdet.nn.models.blocks._graph.base import AbsGraphBlock, AbsGraphFeatExtractor
from diffdet.nn.models.blocks._graph.collapse import AbsGraphCollapser, GraphCollapser, NodePredictor
from diffdet.nn.models.blocks._graph.gravnet import GravNet, GravNetLayer
from diffdet.nn.models.blocks._graph.interaction import InteractionNet

__all__ = [
    "AbsGraphBlock",
    "AbsGraphCollapser",
    "AbsGraphFeatExtractor",
    "GraphCollapser",
    "GravNet",
    "GravNetLayer",
    "InteractionNet",
    "NodePredictor",
]
