"""Sets of objects as graphs: pairs, neighbours, and aggregates in which absent objects do not count.

Objects run along the last axis but one, ``(*batch, object, feature)``; a mask ``(*batch, object)`` is true where an
object is present. Whatever number stands in the place of an absent object, NaN included, it enters neither value nor
gradient: it is replaced before it is used.

Pairs are held as a grid ``(*batch, receiver, sender, feature)`` that broadcasting makes, without a list of edges and
without one-hot matrices.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "absmax_present",
    "clear_absent",
    "drop_diagonal",
    "gather_objects",
    "gravity",
    "max_present",
    "mean_present",
    "nearest",
    "ordered_pairs",
    "pack_present",
    "pair_grid",
    "pair_mask",
    "squared_distances",
    "sum_present",
    "unordered_pairs",
    "unpack_present",
]


def ordered_pairs(n: int) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Receiver and sender of all n (n - 1) ordered pairs of different objects, receiver by receiver.

    Args:
        n: Number of objects.

    Returns:
        Index of the receiver and of the sender of every pair.
    """
    pairs = (1 - torch.eye(n, dtype=torch.int64)).nonzero()
    return pairs[:, 0], pairs[:, 1]


def unordered_pairs(n: int) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Both objects of all n (n - 1) / 2 pairs i < j: (0, 1), (0, 2), ..., (1, 2), ...

    Args:
        n: Number of objects.

    Returns:
        Index of the first and of the second object of every pair.
    """
    first, second = torch.triu_indices(n, n, offset=1)
    return first, second


def clear_absent(
    x: Float[Tensor, "*batch object feature"], mask: Bool[Tensor, "*batch object"] | None
) -> Float[Tensor, "*batch object feature"]:
    """Zero in the place of absent objects, with gradient 0.

    Args:
        x: Features of objects.
        mask: True where an object is present; None when all are.

    Returns:
        Features, same shape.
    """
    return x if mask is None else torch.where(mask[..., None], x, torch.zeros_like(x))


def pair_grid(
    receiver: Float[Tensor, "*batch object feature"], sender: Float[Tensor, "*batch object feature"]
) -> Float[Tensor, "*batch object object feature"]:
    """Sum of a receiver's and a sender's part, for every pair: grid[r, s] = receiver[r] + sender[s].

    A linear map of the two objects of a pair put side by side, W [x_r ; x_s] + b, is the sum of one map of each:
    ``pair_grid(W_a x + b, W_b x)``, at V instead of V^2 products.

    Differentiable in: receiver, sender.

    Args:
        receiver: What the receivers contribute. May hold a part of the receivers only.
        sender: What the senders contribute.

    Returns:
        Grid of pairs, pairs of an object with itself included.
    """
    return receiver[..., :, None, :] + sender[..., None, :, :]


def pair_mask(
    n: int, mask: Bool[Tensor, "*batch object"] | None = None, device: torch.device | None = None
) -> Bool[Tensor, "*batch object object"]:
    """Which pairs of a grid exist: different objects, both present.

    Args:
        n: Number of objects.
        mask: True where an object is present; None when all are.
        device: Device of the result if there is no mask.

    Returns:
        True for pairs that exist; shape (n, n) without a mask.
    """
    index = torch.arange(n, device=device if mask is None else mask.device)
    different = index[:, None] != index[None, :]
    return different if mask is None else different & mask[..., :, None] & mask[..., None, :]


def drop_diagonal(grid: Tensor, dim: int) -> Tensor:
    """A grid of pairs without those of an object with itself.

    The grid is read as a line, whose elements 0, V + 1, 2 (V + 1), ... are the diagonal.

    Differentiable in: grid.

    Args:
        grid: (*batch, V, V, *rest).
        dim: Number of batch axes.

    Returns:
        (*batch, V, V - 1, *rest), senders in ascending order.
    """
    batch, n, rest = grid.shape[:dim], grid.shape[dim], grid.shape[dim + 2 :]
    line = grid.reshape(*batch, n * n, *rest)
    line = line.narrow(dim, 1, n * n - 1).reshape(*batch, n - 1, n + 1, *rest)
    return line.narrow(dim + 1, 0, n).reshape(*batch, n, n - 1, *rest)


def sum_present(
    x: Float[Tensor, "*batch object feature"], mask: Bool[Tensor, "*batch object"] | None = None
) -> Float[Tensor, "*batch feature"]:
    """Sum over the objects that are present.

    Differentiable in: x.

    Args:
        x: Features of objects.
        mask: True where an object is present; None when all are.

    Returns:
        One sum a feature; 0 where no object is present.
    """
    return clear_absent(x, mask).sum(-2)


def mean_present(
    x: Float[Tensor, "*batch object feature"], mask: Bool[Tensor, "*batch object"] | None = None
) -> Float[Tensor, "*batch feature"]:
    """Mean over the objects that are present.

    Differentiable in: x.

    Args:
        x: Features of objects.
        mask: True where an object is present; None when all are.

    Returns:
        One mean a feature; 0 where no object is present.
    """
    if mask is None:
        return x.mean(-2)
    return sum_present(x, mask) / mask.sum(-1, keepdim=True).clamp_min(1).to(x.dtype)


def max_present(
    x: Float[Tensor, "*batch object feature"], mask: Bool[Tensor, "*batch object"] | None = None
) -> Float[Tensor, "*batch feature"]:
    """Largest value among the objects that are present.

    Differentiable in: x; objects that tie share the gradient.

    Args:
        x: Features of objects.
        mask: True where an object is present; None when all are.

    Returns:
        One maximum a feature; 0 where no object is present.
    """
    if mask is None:
        return x.amax(-2)
    largest = torch.where(mask[..., None], x, torch.full_like(x, -math.inf)).amax(-2)
    return torch.where(mask.any(-1, keepdim=True), largest, torch.zeros_like(largest))


def absmax_present(
    x: Float[Tensor, "*batch object feature"], mask: Bool[Tensor, "*batch object"] | None = None
) -> Float[Tensor, "*batch feature"]:
    """Largest magnitude among the objects that are present.

    Differentiable in: x; objects that tie share the gradient, which is 0 at 0.

    Args:
        x: Features of objects.
        mask: True where an object is present; None when all are.

    Returns:
        One magnitude a feature; 0 where no object is present.
    """
    return clear_absent(x, mask).abs().amax(-2)


def squared_distances(s: Float[Tensor, "*batch object space"]) -> Float[Tensor, "*batch object object"]:
    """Squared Euclidean distances between all objects, from differences (not from products, which cancel).

    Args:
        s: Coordinates.

    Returns:
        Squared distances; exactly 0 from an object to itself.
    """
    total = torch.zeros_like(s[..., :, None, 0] - s[..., None, :, 0])
    for axis in range(s.shape[-1]):
        total = total + (s[..., :, None, axis] - s[..., None, :, axis]).square()
    return total


def nearest(
    s: Float[Tensor, "*batch object space"], k: int, mask: Bool[Tensor, "*batch object"] | None = None
) -> tuple[Int[Tensor, "*batch object k"], Bool[Tensor, "*batch object k"] | None]:
    """The k nearest present objects of every object, itself always among them.

    Which ones are nearest is a choice and has no gradient; compute distances from what `gather_objects` collects. Of
    objects that are equally far the first ones are taken, on every device and in every format that a network is
    exported to: coordinates behind an activation with a flat part, such as ReLU, coincide often.

    Args:
        s: Coordinates.
        k: How many, at most the number of objects.
        mask: True where an object is present; None when all are.

    Returns:
        Index of the neighbours, ascending, and whether they are there: with a mask, objects may have fewer than k
        neighbours. None without a mask.
    """
    n = s.shape[-2]
    distances = squared_distances(clear_absent(s.detach(), mask))
    if mask is not None:
        distances = torch.where(mask[..., None, :], distances, torch.full_like(distances, math.inf))
    index = torch.arange(n, device=s.device)
    distances = torch.where(index[:, None] == index, torch.full_like(distances, -1), distances)
    furthest = distances.topk(k, dim=-1, largest=False).values.amax(-1, keepdim=True)
    nearer, tie = distances < furthest, distances == furthest
    chosen = nearer | (tie & (tie.cumsum(-1) <= k - nearer.sum(-1, keepdim=True)))
    slot = torch.where(chosen, chosen.cumsum(-1) - 1, k)  # the others fall into a slot behind, which is cut off
    found = torch.zeros_like(slot[..., :1]).expand(*slot.shape[:-1], k + 1).scatter(-1, slot, index.expand_as(slot))
    found = found[..., :k]
    if mask is None:
        return found, None
    return found, mask[..., None, :].expand(*mask.shape, n).gather(-1, found) & mask[..., :, None]


def gather_objects(
    x: Float[Tensor, "batch object feature"], index: Int[Tensor, "batch node k"]
) -> Float[Tensor, "batch node k feature"]:
    """Features of chosen objects of each event.

    Differentiable in: x.

    Args:
        x: Features of objects.
        index: Which objects, for every node.

    Returns:
        Features of the chosen objects.
    """
    nodes, k = index.shape[1:]
    flat = index.reshape(index.shape[0], nodes * k, 1).expand(-1, -1, x.shape[-1])
    return x.gather(1, flat).reshape(index.shape[0], nodes, k, x.shape[-1])


def gravity(squared_distance: Tensor, strength: float = 10.0) -> Tensor:
    """Weight with which a neighbour's message arrives, exp(-strength d^2).

    Qasim et al., arXiv:1902.07987, equation 1, which has strength 10.

    Differentiable in: squared_distance.

    Args:
        squared_distance: Any shape.
        strength: Inverse squared length of the decay.

    Returns:
        Weights in (0, 1].
    """
    return torch.exp(-strength * squared_distance)


def pack_present(
    x: Float[Tensor, "batch object feature"], mask: Bool[Tensor, "batch object"]
) -> tuple[Float[Tensor, "batch object feature"], Int[Tensor, "batch object"], Int[Tensor, " batch"]]:
    """Present objects first, in their order, then zeros.

    Differentiable in: x.

    Args:
        x: Features of objects.
        mask: True where an object is present.

    Returns:
        The packed features, the slot that each came from, and how many are present.
    """
    n = x.shape[-2]
    place = torch.arange(n, device=x.device)
    order = torch.where(mask, place, place + n).sort(-1).indices
    packed = clear_absent(x, mask).gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
    return packed, order, mask.sum(-1)


def unpack_present(
    packed: Float[Tensor, "batch object feature"], order: Int[Tensor, "batch object"]
) -> Float[Tensor, "batch object feature"]:
    """Undo `pack_present`: every object back in the slot that it came from.

    Differentiable in: packed.

    Args:
        packed: Features in packed order.
        order: Slots, from `pack_present`.

    Returns:
        Features in the order of slots.
    """
    return packed.gather(1, order.sort(-1).indices[..., None].expand(-1, -1, packed.shape[-1]))
