"""What every head is: raw input in, one flat row of features an event out, and a map from names to output columns."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.blocks.abs_block import AbsBlock
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init

if TYPE_CHECKING:
    from diffdet.nn.models.helpers import CatEmbedder

HeadInput = Tensor | tuple[Tensor, Tensor]
"""Flat columns (B, F), a matrix of objects, or both."""

SHARED_ARGUMENTS = ("cat_embedder", "lookup_init", "lookup_act", "freeze", "do_cont", "do_cat")
"""Arguments that builders hand to every head alike; a head that has no use for one may leave it."""


class AbsHead(AbsBlock):
    """The first block of a network.

    Derived classes call `_map_outputs` at the end of their `__init__`.

    Args:
        cont_feats: Names of the continuous columns of the input, in their order.
        cat_embedder: Names, cardinalities and embedding widths of the categorical columns, which follow the
            continuous ones; None when there are none.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        freeze: Whether all parameters start as not trainable.

    Attributes:
        cont_feats: Names of the flat continuous features.
        cat_feats: Names of the categorical features.
        matrix_feats: Names of the features of objects.
        n_cont_in: Number of flat continuous features.
        n_cat_in: Number of categorical features.
        n_matrix_in: Number of features of objects.
        feat_map: Name of a feature -> indices of the output columns that it influences.

    Raises:
        InputError: If a name stands twice.
    """

    feat_map: dict[str, list[int]]

    def __init__(
        self,
        cont_feats: Sequence[str],
        cat_embedder: CatEmbedder | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
    ) -> None:
        super().__init__(lookup_init=lookup_init, freeze=freeze)
        self.cont_feats = names("cont_feats", cont_feats)
        self.cat_embedder = cat_embedder
        self.cat_feats: list[str] = [] if cat_embedder is None else list(cat_embedder.cat_names)
        if both := set(self.cont_feats) & set(self.cat_feats):
            raise InputError(f"`cont_feats` and `cat_embedder` share names: {', '.join(sorted(both))}")
        self.n_cont_in, self.n_cat_in = len(self.cont_feats), len(self.cat_feats)
        self.matrix_feats: list[str] = []
        self.n_matrix_in = 0

    @abstractmethod
    def _map_outputs(self) -> None:
        """Create `feat_map`."""

    @abstractmethod
    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Pass raw input through the head.

        Args:
            x: Flat columns (B, F), a matrix of objects, or both as a tuple; see the class.
            mask: (B, V), true where an object is present; None when all are.
        """


def names(argument: str, given: Iterable[str]) -> list[str]:
    """Names as a list, after refusing what is no name or stands twice.

    Args:
        argument: Name of the argument, for the message.
        given: The names.

    Raises:
        InputError: If it is a single text, holds something else than texts, or a name twice.
    """
    if isinstance(given, str):
        raise InputError(f"`{argument}` must be a list of names; got the text {given!r}")
    found = list(given)
    if odd := [name for name in found if not isinstance(name, str)]:
        raise InputError(f"`{argument}` must hold names; got {odd[0]!r} of type {type(odd[0]).__name__}")
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise InputError(f"`{argument}` must hold each name once; got {', '.join(twice)} more than once")
    return found


def refuse_unknown(owner: object, given: dict[str, Any], extra: Iterable[str] = ()) -> None:
    """Refuse keyword arguments that mean nothing to a head, while leaving those that builders hand to every head.

    Args:
        owner: The head.
        given: What its `**kargs` caught.
        extra: More names that may be left.

    Raises:
        InputError: If there is another name; the message names the nearest argument.
    """
    known = [
        name
        for cls in type(owner).__mro__
        if "__init__" in vars(cls)
        for name, one in inspect.signature(cls.__init__).parameters.items()
        if name != "self" and one.kind is not one.VAR_KEYWORD
    ]
    for name in given:
        if name not in (*SHARED_ARGUMENTS, *extra):
            raise InputError(f"`{name}` is no argument of {type(owner).__name__}{did_you_mean(name, known)}")


def named_parameters_of(factory: Callable[..., Any]) -> tuple[set[str], bool]:
    """Names of the arguments that a class, function or partial of one takes, and whether it takes any other name.

    Args:
        factory: What makes a block.
    """
    parameters = inspect.signature(factory).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}, takes_any


def preset(factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments that a partial, or a partial of one, has set; empty for anything else.

    Args:
        factory: What makes a block.
    """
    return dict(factory.keywords) if isinstance(factory, partial) else {}


def check_flat(x: Tensor, columns: Sequence[str]) -> None:
    """Refuse flat input that has not one column a name.

    Args:
        x: Flat input.
        columns: Names of the columns.

    Raises:
        ShapeError: If x is not (B, columns).
    """
    if x.ndim != 2 or x.shape[1] != len(columns):
        some = ", ".join(columns[:4]) + (", ..." if len(columns) > 4 else "")
        raise ShapeError(f"`x` must have shape (batch, {len(columns)}), one column for each of {some or 'no feature'}; "
                         f"got {tuple(x.shape)}")  # fmt: skip
