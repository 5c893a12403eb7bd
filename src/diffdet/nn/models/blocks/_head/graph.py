"""The interaction network as a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.nn.models.blocks._dense import dense_stack
from diffdet.nn.models.blocks._graph.pairs import interact
from diffdet.nn.models.blocks._head.base import HeadInput
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act

AGGREGATIONS = ("sum", "flatten")


class InteractionNet(AbsMatrixHead):
    """Interaction network: every object hears every other one.

    With receiver r and sender s among V objects of P features,

        a_rs = f_R([x_r ; x_s]),   e_r = sum over s != r of a_rs,   o_r = f_O([x_r ; e_r])

    and the output is the sum of o_r over objects, which does not depend on their order, or all o_r flattened,
    feature by feature. Source: arXiv:1612.00222; for jets, arXiv:1908.05318. The matrix is column-wise, (B, P, V).

    All V (V - 1) ordered pairs take part. The older package used a ring of V pairs, each V - 1 times;
    `legacy_ring=True` gives that for weights that were trained with it.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects.
        feats_per_vec: Names of the features of an object.
        intfunc_depth: Number of dense layers of f_R.
        intfunc_width: Width of all but the last of them.
        intfunc_out_sz: Width of the last: of a message.
        outfunc_depth: Number of dense layers of f_O.
        outfunc_width: Width of all but the last of them.
        outfunc_out_sz: Width of the last: of the new features of an object.
        agg_method: ``sum`` or ``flatten``, in any case.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm, over pairs or objects that exist.
        act: Name of the activation of all dense layers, the last ones included.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        legacy_ring: Whether to use the edges of the older package. Takes no mask.
        recompute: Whether backward works messages out again instead of keeping those of all pairs: slower by about a
            half, in a fraction of the memory.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Raises:
        InputError: As `AbsMatrixHead`; if there are fewer than two objects, a depth or width is below 1, or
            `agg_method` is unknown.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        intfunc_depth: int,
        intfunc_width: int,
        intfunc_out_sz: int,
        outfunc_depth: int,
        outfunc_width: int,
        outfunc_out_sz: int,
        agg_method: str,
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        *,
        legacy_ring: bool = False,
        recompute: bool = False,
        **kargs: Any,
    ) -> None:
        super().__init__(
            cont_feats, vecs, feats_per_vec, row_wise=False,
            lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze, **kargs,
        )  # fmt: skip
        check_two_objects("vecs", self.n_v)
        self.agg_method = agg_method.lower() if isinstance(agg_method, str) else agg_method
        check_choice("agg_method", self.agg_method, AGGREGATIONS)
        self.legacy_ring, self.recompute = legacy_ring, recompute
        self.intfunc_out_sz = check_count("intfunc_out_sz", intfunc_out_sz)
        self.outfunc_out_sz = check_count("outfunc_out_sz", outfunc_out_sz)
        fr = [check_count("intfunc_width", intfunc_width)] * (check_count("intfunc_depth", intfunc_depth) - 1)
        fo = [check_count("outfunc_width", outfunc_width)] * (check_count("outfunc_depth", outfunc_depth) - 1)
        dense: dict[str, Any] = {"do": do, "bn": bn, "act": act, "objects": True}
        dense |= {"lookup_init": lookup_init, "lookup_act": lookup_act}
        self.fr = dense_stack(2 * self.n_fpv, [*fr, self.intfunc_out_sz], **dense)
        self.fo = dense_stack(self.n_fpv + self.intfunc_out_sz, [*fo, self.outfunc_out_sz], **dense)
        self._map_outputs()

    def get_out_size(self) -> int:
        """Width of the output."""
        return self.outfunc_out_sz * (self.n_v if self.agg_method == "flatten" else 1)

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Let the objects interact and aggregate them.

        Args:
            x: Flat columns (B, F), matrix (B, P, V), or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, width); flattened, column f V + r is feature f of object r, zero where the object is absent.

        Raises:
            NotSupportedError: If there is a mask and `legacy_ring` is set.
        """
        if mask is not None and self.legacy_ring:
            raise NotSupportedError("`mask` has no meaning in the ring of the older package; use `legacy_ring=False`")
        objects = self.get_matrix(x, mask).transpose(1, 2)
        new = interact(
            self.fr, self.fo, objects, mask, legacy_ring=self.legacy_ring, recompute=self.recompute
        )  # fmt: skip
        return new.sum(1) if self.agg_method == "sum" else new.transpose(1, 2).flatten(1)


def check_two_objects(name: str, number: int) -> None:
    """Refuse fewer than two objects, among which there is no pair.

    Args:
        name: Name of the argument, for the message.
        number: How many objects there are.

    Raises:
        InputError: If there are fewer than two.
    """
    if number < 2:
        raise InputError(f"`{name}` must give at least 2 objects, which make a pair; got {number}")
