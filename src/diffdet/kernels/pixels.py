"""Images of charge and what networks see of them: logarithmic scaling and back, rows added and cut, lit pixels.

Networks paint 256 rows of numbers from -1 to 1; a sensor has 250 rows of whole charges from 0 to 255. Three empty rows
on either side make up for it, and charges are scaled by their logarithm, because most of them are small.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

__all__ = [
    "HIGHEST_CHARGE",
    "LEVELS",
    "PADDING",
    "activation_from_charge",
    "activation_of_threshold",
    "charge_from_activation",
    "crop_rows",
    "lit_pixels",
    "pad_rows",
    "paint_pixels",
]

LEVELS = 256
"""Charges from 0 to 255 that 8 bits hold."""

HIGHEST_CHARGE = LEVELS - 1
"""The largest charge, ADU."""

PADDING = 3
"""Rows that networks paint beyond a sensor, on either side."""


def activation_from_charge(charge: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """What a network should paint for a charge, x = 2 ln(q + 1) / ln 256 - 1.

    Differentiable in: charge (> -1).

    Args:
        charge: ADU, from 0 to 255.

    Returns:
        From -1 (no charge) to 1 (255 ADU); 7 ADU is -0.25.
    """
    return 2 * (torch.log(charge + 1) / math.log(LEVELS)) - 1


def activation_of_threshold(charge: float) -> float:
    """The activation of a charge, as `activation_from_charge`, of a number.

    Example:
        >>> activation_of_threshold(7)
        -0.25
    """
    return 2 * math.log2(charge + 1) / math.log2(LEVELS) - 1


def charge_from_activation(
    activation: Float[Tensor, "*shape"],
    *,
    rounding: str = "basf2",
    threshold: int | None = None,
    cut: float | None = None,
) -> UInt8[Tensor, "*shape"]:
    """The charge that an activation stands for, q = 256^((x + 1) / 2) - 1, as a whole number of 8 bits.

    Args:
        activation: From -1 to 1; what lies outside is moved to the nearer end.
        rounding: ``"basf2"`` cuts the fraction off, as the published generators do: in single precision that loses one
            ADU for 97 of the 256 charges, because the scaling does not come back exactly. ``"nearest"`` rounds, and
            every charge comes back.
        threshold: Charges below this many ADU become 0; the read-out never delivers less than 7. None keeps all.
        cut: Activations of this value or below become empty pixels before anything is rounded. None keeps all.

    Returns:
        ADU.

    Raises:
        ValueError: If `rounding` is neither of the two.
    """
    if rounding not in ("basf2", "nearest"):
        raise ValueError(f"`rounding` must be one of 'basf2', 'nearest'; got {rounding!r}")
    if cut is not None:
        activation = torch.where(activation <= cut, -1.0, activation)
    exponent = (0.5 * activation + 0.5).clamp(0, 1)
    charge = (torch.pow(float(LEVELS), exponent) - 1).clamp(0, HIGHEST_CHARGE)
    if rounding == "nearest":
        charge = charge.round()
    whole = charge.to(torch.uint8)
    if threshold is not None:
        whole = torch.where(whole < threshold, 0, whole).to(torch.uint8)
    return whole


def crop_rows(image: Tensor, rows: int = PADDING) -> Tensor:
    """Cut rows off on either side of u.

    Args:
        image: ``(..., u, v)``.
        rows: How many.

    Returns:
        A view of ``(..., u - 2 rows, v)``: network row r + 3 is row r of the sensor.
    """
    return image[..., rows : image.shape[-2] - rows, :]


def pad_rows(image: Tensor, rows: int = PADDING, value: float = 0) -> Tensor:
    """Add rows on either side of u: the inverse of `crop_rows`.

    Args:
        image: ``(..., u, v)``.
        rows: How many.
        value: What they hold: 0 for charges, -1 for activations.

    Returns:
        ``(..., u + 2 rows, v)``.
    """
    padded = image.new_full((*image.shape[:-2], image.shape[-2] + 2 * rows, image.shape[-1]), value)
    padded[..., rows : rows + image.shape[-2], :] = image
    return padded


def lit_pixels(image: UInt8[Tensor, "*shape"]) -> tuple[Int[Tensor, " digit"], UInt8[Tensor, " digit"]]:
    """Where an image holds charge, and how much.

    Args:
        image: ADU, of any shape.

    Returns:
        Positions in the flattened image, ascending, int64; and the charges there, ADU.
    """
    flat = image.reshape(-1)
    # Fewer than one pixel in fifty is lit: looking for lit words of eight pixels first reads the image eight times
    # faster. Both ways give the same positions in the same order.
    if flat.numel() % 8 == 0 and flat.numel() and flat.data_ptr() % 8 == 0:
        words = flat.view(torch.int64).nonzero().squeeze(1)
        bytes_of_words = flat.view(-1, 8)[words]
        word, byte = bytes_of_words.nonzero(as_tuple=True)
        position = words[word] * 8 + byte
        return position, bytes_of_words[word, byte]
    position = flat.nonzero().squeeze(1)
    return position, flat[position]


def paint_pixels(
    position: Int[Tensor, " digit"], charge: Int[Tensor, " digit"] | UInt8[Tensor, " digit"], n_pixels: int
) -> UInt8[Tensor, " pixel"]:
    """A flat image with charges at positions: the inverse of `lit_pixels`.

    Args:
        position: In the flat image; no two the same.
        charge: ADU, from 0 to 255.
        n_pixels: Size of the flat image.

    Returns:
        ADU.
    """
    image = torch.zeros(n_pixels, dtype=torch.uint8, device=position.device)
    image[position.to(torch.int64)] = charge.to(torch.uint8)
    return image
