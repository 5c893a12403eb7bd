"""Messages between all ordered pairs of objects, shared by the head and the graph block called `InteractionNet`.

With receiver r and sender s, both of P features,

    a_rs = f_R([x_r ; x_s])          one message a pair
    e_r  = sum over s != r of a_rs   what a receiver hears
    o_r  = f_O([x_r ; e_r])          its new features

Source: P. Battaglia et al., "Interaction networks for learning about objects, relations and physics",
arXiv:1612.00222; on jets, E. Moreno et al., arXiv:1908.05318.

The first linear map of f_R is split, W [x_r ; x_s] = W_a x_r + W_b x_s, so that it costs V instead of V^2 products and
pairs need not be put side by side; the rest of f_R runs on a grid of pairs that broadcasting makes. A batch is worked
on in pieces whose grids fit into the cache of a processor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffdet.kernels.graphs import clear_absent, drop_diagonal, pair_grid, pair_mask
from diffdet.nn.models.blocks._dense import DenseStack
from diffdet.nn.models.layers.batchnorms import LCBatchNorm1d

CACHE_NUMBERS = 2**20
"""Numbers that the grid of a piece may hold on a processor: 4 MB in float32, about a second-level cache."""


def ordered_messages(fr: DenseStack, x: Tensor, mask: Tensor | None = None, *, recompute: bool = False) -> Tensor:
    """Sum of the messages that every object receives from all others.

    Memory in float32, without gradient: a few times 4 MB on a processor. With gradient the grids of all layers are
    kept, about 4 B V^2 (2 h + 2 h_out) bytes for two layers of widths h and h_out: 200 MB at B = 64, V = 128, h = 16
    and h_out = 8. With `recompute` only those of one piece are.

    Args:
        fr: f_R, dense layers from 2 P features to those of a message.
        x: (B, V, P), objects.
        mask: (B, V), true where an object is present; None when all are.
        recompute: Whether backward works the grids out again, piece by piece, instead of keeping them.

    Returns:
        (B, V, width of a message); what stands at absent receivers means nothing.
    """
    if mask is not None:
        x = clear_absent(x, mask)
    if fr.training and any(isinstance(part, LCBatchNorm1d) for part in fr.modules()):
        return _messages_with_statistics(fr, x, mask)
    pieces = _pieces(fr, x, recompute)
    if pieces == 1:
        return _messages(fr, x, mask)
    work: Callable[..., Tensor] = partial(_messages, fr)
    if recompute and torch.is_grad_enabled():
        work = partial(checkpoint, work, use_reentrant=False)
    masks = [None] * pieces if mask is None else mask.tensor_split(pieces)
    return torch.cat([work(part, present) for part, present in zip(x.tensor_split(pieces), masks, strict=True)])


def _pieces(fr: DenseStack, x: Tensor, recompute: bool) -> int:
    """Into how many pieces to cut a batch."""
    if torch.compiler.is_compiling() or not (x.device.type == "cpu" or recompute):
        return 1  # a graph is for any batch size, and other devices want large pieces
    widest = max(part.out_features for part in fr.modules() if isinstance(part, nn.Linear))
    events = max(1, CACHE_NUMBERS // (x.shape[1] ** 2 * widest))
    return max(1, -(-x.shape[0] // events))


def _first_grid(fr: DenseStack, x: Tensor) -> Tensor:
    """What the first linear map of f_R gives for every pair, (B, receiver, sender, width)."""
    first = next(fr[0].children())
    assert isinstance(first, nn.Linear)
    n = x.shape[-1]
    receiver = nn.functional.linear(x, first.weight[:, :n], first.bias)
    return pair_grid(receiver, nn.functional.linear(x, first.weight[:, n:]))


def _rest(fr: DenseStack, grid: Tensor, mask: Tensor | None) -> Tensor:
    """All of f_R behind its first linear map."""
    for layer in islice(fr[0].children(), 1, None):
        grid = layer(grid, mask) if isinstance(layer, LCBatchNorm1d) else layer(grid)
    for layer in islice(fr, 1, None):
        grid = layer(grid, mask)
    return grid


def _messages(fr: DenseStack, x: Tensor, mask: Tensor | None) -> Tensor:
    """Sums over senders, as products of the grid with a mask of pairs: 1 for those that exist, 0 for others."""
    grid = _rest(fr, _first_grid(fr, x), None)
    exists = pair_mask(x.shape[1], mask, x.device).to(grid.dtype)
    return torch.matmul(exists.unsqueeze(-2), grid).squeeze(-2)


def _messages_with_statistics(fr: DenseStack, x: Tensor, mask: Tensor | None) -> Tensor:
    """The same while batch norms in training look at the grid: it then holds pairs that exist only."""
    grid = drop_diagonal(_first_grid(fr, x), 1)
    if mask is None:
        return _rest(fr, grid, None).sum(2)
    exists = drop_diagonal(pair_mask(x.shape[1], mask), 1)
    return clear_absent(_rest(fr, grid, exists), exists).sum(2)


def ring_messages(fr: DenseStack, x: Tensor) -> Tensor:
    """What the older package sums instead: V - 1 times the message of the next object, in a ring.

    Its list of V (V - 1) edges holds V different pairs only, (r, r + 1 modulo V). For weights that were trained so.

    Args:
        fr: f_R, dense layers from 2 P features to those of a message.
        x: (B, V, P), objects.

    Returns:
        (B, V, width of a message).
    """
    return (x.shape[1] - 1) * fr(torch.cat([x, x.roll(-1, 1)], -1))


def interact(
    fr: DenseStack,
    fo: DenseStack,
    x: Tensor,
    mask: Tensor | None = None,
    *,
    legacy_ring: bool = False,
    recompute: bool = False,
) -> Tensor:
    """New features of every object from itself and all others.

    Args:
        fr: f_R, from 2 P features to those of a message.
        fo: f_O, from P features and those of a message to new ones.
        x: (B, V, P), objects.
        mask: (B, V), true where an object is present; None when all are. Not with `legacy_ring`.
        legacy_ring: Whether to use the edges of the older package; see `ring_messages`.
        recompute: Whether backward works messages out again instead of keeping them.

    Returns:
        (B, V, width of f_O); zeros for absent objects.
    """
    x = clear_absent(x, mask)
    heard = ring_messages(fr, x) if legacy_ring else ordered_messages(fr, x, mask, recompute=recompute)
    return clear_absent(fo(torch.cat([x, heard], -1), mask), mask)
