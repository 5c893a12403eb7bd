"""Exact rewrites of convolutional networks: what can be computed once, or at half the resolution, is.

"Double the image by repeating pixels, then convolve" reads every pixel four times over. Pixel (2i + a, 2j + b) of the
result sees few distinct pixels of the small image: a kernel of 5 sees three of them along an axis, a kernel of 3 sees
two. So there are four small kernels, one for each phase (a, b), whose taps are sums of the taps of the large one; 25
products become 9, and 9 become 4. Zeros at the borders stay zeros, so nothing changes there either.

Norms in evaluation are linear, so they go into the convolution before them; spectral norms are constants.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = [
    "convolve_doubled",
    "fold_scale",
    "interleave",
    "largest_singular_value",
    "norm_as_line",
    "phase_kernels",
    "stretched_kernels",
]


def largest_singular_value(
    matrix: Float[Tensor, "row column"], start: Float[Tensor, "1 row"], *, eps: float
) -> tuple[Float[Tensor, ""], Float[Tensor, "1 row"]]:
    """One power iteration towards the largest singular value: v = u W / |u W|, u' = v W^T / |v W^T|, s = v W^T u'^T.

    Differentiable in: matrix, with u and v held fixed.

    Args:
        matrix: W.
        start: u.
        eps: The smallest length to divide by.

    Returns:
        The estimate s, and u'.

    Reference: T. Miyato et al., Spectral normalization for generative adversarial networks, 2018, algorithm 1.
    """
    with torch.no_grad():
        v = functional.normalize(start @ matrix, eps=eps)
        u = functional.normalize(v @ matrix.T, eps=eps)
    return (v @ matrix.T @ u.T).squeeze(), u


def norm_as_line(
    mean: Float[Tensor, " c"],
    variance: Float[Tensor, " c"],
    gain: Float[Tensor, "*c"] | float,
    shift: Float[Tensor, "*c"] | float,
    *,
    eps: float,
) -> tuple[Float[Tensor, "*c"], Float[Tensor, "*c"]]:
    """A batch norm in evaluation as a x + b.

    Args:
        mean: Of every channel.
        variance: Of every channel.
        gain: Factor after normalising.
        shift: Added after that.
        eps: Added to the variance.

    Returns:
        a and b of every channel.
    """
    scale = gain * torch.rsqrt(variance + eps)
    return scale, shift - mean * scale


def fold_scale(
    weight: Float[Tensor, " out *rest"],
    bias: Float[Tensor, " out"],
    scale: Float[Tensor, " out"],
    shift: Float[Tensor, " out"],
) -> tuple[Float[Tensor, " out *rest"], Float[Tensor, " out"]]:
    """Weight and bias of a layer that is followed by a x + b, with the line folded in.

    Args:
        weight: Of the layer.
        bias: Of the layer.
        scale: a of every output.
        shift: b of every output.
    """
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias * scale + shift


def phase_kernels(weight: Float[Tensor, "out inp size size"]) -> Float[Tensor, "four out inp small small"]:
    """The four small kernels that do on an image what a large one does on the doubled image.

    Args:
        weight: Kernel of edge 3 or 5, used with zeros at the borders so that the size stays.

    Returns:
        Phases (a, b) = (0, 0), (0, 1), (1, 0), (1, 1); edge 2 for 3, and 3 for 5. See `convolve_doubled` for where each
        of them is placed.

    Raises:
        ValueError: If the edge is neither 3 nor 5.
    """
    size = weight.shape[-1]
    # Row a, column t, entry k: whether tap k of the large kernel falls on tap t of the small one.
    if size == 3:
        falls = [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]
    elif size == 5:
        falls = [
            [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
            [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
        ]
    else:
        raise ValueError(f"`weight` must have an edge of 3 or 5; got {size}")
    fold = torch.tensor(falls, dtype=weight.dtype, device=weight.device)
    # a, b phases; s, t small taps; k, l large taps; o, i channels
    kernels = torch.einsum("ask,btl,oikl->aboist", fold, fold, weight)
    return kernels.flatten(0, 1)


def interleave(phases: Float[Tensor, "image four_c u v"], out: Tensor | None = None) -> Float[Tensor, "image c u2 v2"]:
    """Put four phases together: channel (2a + b) c + k of pixel (i, j) becomes channel k of pixel (2i + a, 2j + b).

    Args:
        phases: Channels last in memory, which makes long stretches of it stay together.
        out: Where to put the result, channels last; made when None.

    Returns:
        The image, channels last in memory.
    """
    n, four_c, u, v = phases.shape
    c = four_c // 4
    if out is None:
        out = phases.new_empty((n, 2 * u, 2 * v, c)).permute(0, 3, 1, 2)
    target = out.permute(0, 2, 3, 1).view(n, u, 2, v, 2, c)
    target.copy_(phases.permute(0, 2, 3, 1).view(n, u, v, 2, 2, c).transpose(2, 3))
    return out


def stretched_kernels(weight: Float[Tensor, "out inp size size"], n: int) -> Float[Tensor, "n out inp size long"]:
    """Kernels that give n neighbouring pixels of a row in one step of n pixels.

    A convolution with few output channels leaves most of a processor's lanes idle. Taken n pixels at a time it has n
    times the channels; some products are with zeros.

    Args:
        weight: Kernel for steps of one pixel.
        n: Pixels to a step; must divide the row.

    Returns:
        Kernels of n - 1 more columns: number j holds the given one from column j on. Use them with steps of n along v.
    """
    size = weight.shape[-1]
    long = weight.new_zeros((n, *weight.shape[:-1], size + n - 1))
    for j in range(n):
        long[j, ..., j : j + size] = weight
    return long


def convolve_doubled(
    image: Float[Tensor, "image inp u v"],
    kernels: Float[Tensor, "four out inp small small"],
    bias: Float[Tensor, " out"],
) -> Float[Tensor, "image out u2 v2"]:
    """Double an image by repeating pixels and convolve it, with zeros at the borders.

    The plain form; `diffdet.overlay.inference` lays the same products out for speed.

    Args:
        image: The small image.
        kernels: From `phase_kernels`.
        bias: Of every output channel.

    Returns:
        The large image.
    """
    four, n_out, n_in, size, _ = kernels.shape
    stacked = functional.conv2d(image, kernels.reshape(four * n_out, n_in, size, size), bias.repeat(four), padding=1)
    if size == 2:
        # Phase (a, b) sees pixels i - 1 + a and i + a: it starts a rows and b columns further in.
        u, v = image.shape[-2:]
        parts = stacked.chunk(4, dim=1)
        stacked = torch.cat([parts[2 * a + b][..., a : a + u, b : b + v] for a in (0, 1) for b in (0, 1)], dim=1)
    return interleave(stacked)
