"""Connected components of sparse pixels: which lit pixels touch."""

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["components", "touching"]


def touching(
    key: Int[Tensor, " pixel"], row: Int[Tensor, " pixel"], width: int, step: tuple[int, int]
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Pairs of lit pixels that are one step apart.

    Args:
        key: Number of every lit pixel, ascending, without repeats: ``line * width + row``, where lines of different
            images do not follow on one another.
        row: Place of every pixel in its line, 0 to ``width - 1``.
        width: Pixels to a line.
        step: Lines and places from the first pixel of a pair to the second; the first pixel comes first in the order.

    Returns:
        Indices of the first and of the second pixel of every pair.
    """
    lines, places = step
    wanted = key + lines * width + places
    inside = ((row + places >= 0) & (row + places < width)).nonzero()[:, 0]
    where = torch.searchsorted(key, wanted[inside])
    found = where < len(key)
    found &= key[where.clamp_max(max(len(key) - 1, 0))] == wanted[inside]
    return inside[found], where[found]


def components(n_points: int, first: Int[Tensor, " pair"], second: Int[Tensor, " pair"]) -> Int[Tensor, " point"]:
    """Number of the component of every point: the smallest index that it is connected with.

    Both ends of every pair take the smaller of their roots, then every point jumps to the root of its root, until
    nothing changes: the number of rounds grows like the logarithm of the longest chain.

    Args:
        n_points: Points.
        first: One end of every pair.
        second: The other end.

    Returns:
        Roots, int64: ``root[root] == root``.

    Reference: Y. Shiloach and U. Vishkin, "An O(log n) parallel connectivity algorithm", J. Algorithms 3 (1982) 57.
    """
    root = torch.arange(n_points, device=first.device)
    while True:
        one, other = root[first], root[second]
        different = one != other
        if not bool(different.any()):
            return root
        low, high = torch.minimum(one, other)[different], torch.maximum(one, other)[different]
        root = root.scatter_reduce(0, high, low, "amin")
        while True:
            jumped = root[root]
            if torch.equal(jumped, root):
                break
            root = jumped
        first, second = first[different], second[different]
