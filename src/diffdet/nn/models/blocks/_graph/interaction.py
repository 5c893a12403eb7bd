"""The interaction network as a graph block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.nn.models.blocks._dense import BatchNormClass
from diffdet.nn.models.blocks._graph.base import AbsGraphFeatExtractor
from diffdet.nn.models.blocks._graph.pairs import interact
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class InteractionNet(AbsGraphFeatExtractor):
    """Interaction network: every object hears every other one. Objects are columns, (B, P, V).

    With receiver r and sender s,

        a_rs = f_R([x_r ; x_s]),   e_r = sum over s != r of a_rs,   o_r = f_O([x_r ; e_r])

    over all V (V - 1) ordered pairs. The older package used a ring of V pairs; see `legacy_ring`.
    Source: arXiv:1612.00222.

    Args:
        n_v: V, number of objects, at least 2.
        n_fpv: P, number of features of an object.
        intfunc_outs: Widths of the dense layers of f_R.
        outfunc_outs: Widths of the dense layers of f_O.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm.
        act: Name of the activation of all dense layers, the last ones included.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.
        legacy_ring: Whether to use the edges of the older package, for weights that were trained so. Takes no mask.
        recompute: Whether backward works messages out again instead of keeping those of all pairs.

    Raises:
        InputError: As `AbsGraphBlock`; if there is one object only, or no width.
    """

    row_wise = False

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        intfunc_outs: Sequence[int],
        outfunc_outs: Sequence[int],
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        *,
        legacy_ring: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__(n_v, n_fpv, do, bn, act, lookup_init, lookup_act, bn_class)
        if self.n_v < 2:
            raise InputError(f"`n_v` must be at least 2 objects, which make a pair; got {n_v}")
        self.intfunc_outs = check_widths("intfunc_outs", intfunc_outs)
        self.outfunc_outs = check_widths("outfunc_outs", outfunc_outs)
        self.legacy_ring, self.recompute = legacy_ring, recompute
        self.fr = self.dense(2 * self.n_fpv, self.intfunc_outs)
        self.fo = self.dense(self.n_fpv + self.intfunc_outs[-1], self.outfunc_outs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let the objects interact.

        Args:
            x: (B, P, V), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, outfunc_outs[-1], V); zeros for absent objects.

        Raises:
            NotSupportedError: If there is a mask and `legacy_ring` is set.
        """
        if mask is not None and self.legacy_ring:
            raise NotSupportedError("`mask` has no meaning in the ring of the older package; use `legacy_ring=False`")
        new = interact(
            self.fr, self.fo, self.rows(x, mask), mask, legacy_ring=self.legacy_ring, recompute=self.recompute
        )  # fmt: skip
        return new.transpose(1, 2)

    def get_out_size(self) -> tuple[int, int]:
        """Numbers of objects and of features of each."""
        return self.n_v, self.outfunc_outs[-1]


def check_widths(name: str, given: Sequence[int]) -> list[int]:
    """Refuse what are no widths of layers.

    Args:
        name: Name of the argument, for the message.
        given: The widths.

    Returns:
        The widths as a list.

    Raises:
        InputError: If there is none, or one is below 1.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(f"`{name}` must be a list of at least one width; got {given!r}")
    return [check_count(name, width) for width in given]
