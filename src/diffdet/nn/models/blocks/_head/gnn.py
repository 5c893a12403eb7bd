"""Graph networks as a head: one block that works out features of objects, one that makes a flat row of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.kernels.graphs import clear_absent
from diffdet.nn.models.blocks._dense import BatchNormClass
from diffdet.nn.models.blocks._graph.base import AbsGraphFeatExtractor, with_means
from diffdet.nn.models.blocks._graph.collapse import AbsGraphCollapser
from diffdet.nn.models.blocks._head.base import HeadInput, preset
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act
from diffdet.nn.models.layers.batchnorms import LCBatchNorm1d


class GNNHead(AbsMatrixHead):
    """A graph network as a head: an extractor gives objects new features, a collapser makes a row of them.

    If asked for, objects pass through a batch norm a feature and get the means of all features appended. They go to the
    extractor in its layout, and from there as rows to the collapser::

        gravnet = partial(GravNet, cat_means=True, f_slr_depth=2, n_s=4, n_lr=8, k=5, f_out_depth=2, n_out=[16, 16])
        means = partial(GraphCollapser, flatten=False)
        head = GNNHead(cont_feats, vecs, feats_per_vec, extractor=gravnet, collapser=means)

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects.
        feats_per_vec: Names of the features of an object.
        extractor: What makes the extractor from `n_v` and `n_fpv`, best a `functools.partial`.
        collapser: What makes the collapser from `n_v` and `n_fpv`, likewise.
        use_in_bn: Whether the input passes through a batch norm, over objects that are present.
        cat_means: Whether to append the mean of every feature over objects to each object.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        bn_class: Number of channels -> batch norm.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Attributes:
        bn: The batch norm of the input, or None.
        extractor: The extractor.
        collapser: The collapser.

    Raises:
        InputError: As `AbsMatrixHead`; if a part is not of the kind that it should be.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        extractor: Callable[..., AbsGraphFeatExtractor],
        collapser: Callable[..., AbsGraphCollapser],
        use_in_bn: bool = False,
        cat_means: bool = False,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        **kargs: Any,
    ) -> None:
        # The layout is that of the extractor, which is not made yet: partials and classes know it.
        row_wise = bool(getattr(getattr(extractor, "func", extractor), "row_wise", True))
        super().__init__(
            cont_feats, vecs, feats_per_vec, row_wise=row_wise,
            lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze, **kargs,
        )  # fmt: skip
        self.use_in_bn, self.cat_means = use_in_bn, cat_means
        self.bn = bn_class(self.n_fpv) if use_in_bn else None
        shared: dict[str, Any] = {"lookup_init": lookup_init, "lookup_act": lookup_act, "bn_class": bn_class}
        n_fpv = self.n_fpv * (2 if cat_means else 1)
        self.extractor = extractor(n_v=self.n_v, n_fpv=n_fpv, **_unset(shared, extractor))
        if not isinstance(self.extractor, AbsGraphFeatExtractor) or self.extractor.row_wise != row_wise:
            raise InputError(f"`extractor` must make an AbsGraphFeatExtractor; got {type(self.extractor).__name__}")
        n_v, n_fpv = self.extractor.get_out_size()
        self.collapser = collapser(n_v=n_v, n_fpv=n_fpv, **_unset(shared, collapser))
        if not isinstance(self.collapser, AbsGraphCollapser):
            raise InputError(f"`collapser` must make an AbsGraphCollapser; got {type(self.collapser).__name__}")
        self._map_outputs()

    def get_out_size(self) -> Any:
        """Width of the output, or its shape without the batch axis if the collapser gives more than a row."""
        return self.collapser.get_out_size()

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Extract and collapse.

        Args:
            x: Flat columns (B, F), the matrix in the layout of the extractor, or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            What the collapser gives, (B, width).
        """
        objects = self.get_matrix(x, mask)
        rows = objects if self.row_wise else objects.transpose(1, 2)
        if self.bn is not None:
            rows = clear_absent(LCBatchNorm1d(self.bn)(rows, mask), mask)
        if self.cat_means:
            rows = clear_absent(with_means(rows, mask), mask)
        new = self.extractor(rows if self.row_wise else rows.transpose(1, 2), mask)
        return self.collapser(new if self.row_wise else new.transpose(1, 2), mask)


def _unset(shared: dict[str, Any], factory: Callable[..., Any]) -> dict[str, Any]:
    """Settings that a partial has not set by itself."""
    return {name: value for name, value in shared.items() if name not in preset(factory)}
