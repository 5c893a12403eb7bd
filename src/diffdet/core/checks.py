"""One voice for bad input: every check names the argument, what was expected and what was given.

A check returns nothing useful unless its docstring says so, and raises `InputError` or `ShapeError`. Checks that look
into tensors synchronise with the device; use them where objects are built or files are read, not in the loop over
muons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.core.words import nearest


def _show(value: object) -> str:
    """Text of a value for a message: short for tensors, `repr` for the rest."""
    if isinstance(value, Tensor):
        if value.numel() <= 6:
            return f"{value.tolist()}"
        return f"a tensor of shape {tuple(value.shape)} from {value.min().item():.6g} to {value.max().item():.6g}"
    return repr(value)


def _as_tensor(name: str, value: float | Tensor) -> Tensor:
    """The value as a tensor, after refusing what is no number."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype is torch.bool:
            raise InputError(f"`{name}` must hold real numbers; got dtype {value.dtype}")
        return value.detach()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"`{name}` must be a real number; got {value!r} of type {type(value).__name__}")
    return torch.tensor(float(value), dtype=torch.float64)


def check_finite(name: str, value: float | Tensor) -> None:
    """Refuse NaN and infinity.

    Args:
        name: Name of the argument, for the message.
        value: Number or tensor of any shape.

    Raises:
        InputError: If an element is not finite; the message says how many and where the first is.
    """
    tensor = _as_tensor(name, value)
    if tensor.dtype.is_floating_point:
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            if tensor.ndim == 0:
                raise InputError(f"`{name}` must be finite; got {tensor.item()}")
            first = tuple(bad.nonzero()[0].tolist())
            raise InputError(
                f"`{name}` must be finite; {int(bad.sum())} of {bad.numel()} elements are not, "
                f"the first at index {first}: {tensor[first].item()}"
            )


def check_positive(name: str, value: float | Tensor) -> None:
    """Refuse what is not finite and greater than zero.

    Args:
        name: Name of the argument, for the message.
        value: Number or tensor of any shape.

    Raises:
        InputError: If an element is not finite, or is zero or below.
    """
    check_finite(name, value)
    tensor = _as_tensor(name, value)
    if bool((tensor <= 0).any()):
        raise InputError(f"`{name}` must be greater than 0; got {_show(value)}")


def check_in_range(
    name: str,
    value: float | Tensor,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    low_open: bool = False,
    high_open: bool = False,
    unit: str = "",
) -> None:
    """Refuse what is not finite and between two bounds.

    Args:
        name: Name of the argument, for the message.
        value: Number or tensor of any shape.
        low: Lower bound.
        high: Upper bound.
        low_open: Whether the lower bound itself is refused.
        high_open: Whether the upper bound itself is refused.
        unit: Unit of the bounds, for the message.

    Raises:
        InputError: If an element is not finite, or lies outside.
    """
    check_finite(name, value)
    tensor = _as_tensor(name, value)
    below = tensor <= low if low_open else tensor < low
    above = tensor >= high if high_open else tensor > high
    if bool((below | above).any()):
        left = "(" if low_open or low == -math.inf else "["
        right = ")" if high_open or high == math.inf else "]"
        raise InputError(
            f"`{name}` must lie in {left}{low:g}, {high:g}{right}{unit and ' ' + unit}; got {_show(value)}"
        )


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse what is not one of the choices.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        choices: What is allowed.

    Raises:
        InputError: If the value is not among the choices; the message lists them and names the nearest.
    """
    allowed = list(choices)
    if value in allowed:
        return
    raise InputError(
        f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}{did_you_mean(str(value), allowed)}"
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A sentence that names the choice nearest to a misspelt word, or an empty string when none is near.

    Args:
        word: What was given.
        choices: What is allowed.

    Returns:
        Text such as ``". Did you mean 'lead'?"``, to be appended to a message.
    """
    near = nearest(word, choices)
    return f". Did you mean {near!r}?" if near else ""


def check_shape(name: str, tensor: Tensor, spec: str) -> dict[str, int]:
    """Refuse a tensor whose shape does not fit.

    Args:
        name: Name of the argument, for the message.
        tensor: The tensor.
        spec: One word an axis, separated by spaces: a number for a fixed size, a name for a free one (equal names must
            have equal sizes), and as the first word ``*name`` for any number of leading axes; for example ``"*batch hit
            3"``.

    Returns:
        Size of every named axis.

    Raises:
        ShapeError: If the number of axes or a size differs.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(f"`{name}` must be a tensor of shape ({spec.replace(' ', ', ')}); got {type(tensor).__name__}")
    words = spec.split()
    shape = tuple(tensor.shape)
    free = bool(words) and words[0].startswith("*")
    axes = words[1:] if free else words
    fits = len(shape) >= len(axes) if free else len(shape) == len(axes)
    sizes: dict[str, int] = {}
    if fits:
        for word, size in zip(axes, shape[len(shape) - len(axes) :], strict=True):
            wanted = int(word) if word.isdigit() else sizes.setdefault(word, size)
            fits = fits and wanted == size
    if not fits:
        raise ShapeError(f"`{name}` must have shape ({', '.join(words)}); got {shape}")
    return sizes


def check_same_device(**tensors: Tensor) -> None:
    """Refuse tensors that live on different devices.

    Args:
        **tensors: Tensors by the name of their argument.

    Raises:
        InputError: If they do not all live on one device; the message lists them.
    """
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listing = ", ".join(f"`{name}` on {device}" for name, device in devices.items())
        raise InputError(f"tensors must live on one device; got {listing}. Move them with `.to(device)`")


def check_multiple(name: str, length: float, unit: float, unit_name: str, *, rtol: float = 1e-6) -> int:
    """Refuse a length that is not a whole number of units, to within rounding.

    Args:
        name: Name of the length, for the message.
        length: The length, m (or any unit that `unit` shares). Must be positive.
        unit: The unit, for example the edge of a voxel, m. Must be positive.
        unit_name: Name of the unit, for the message.
        rtol: How far length / unit may be from a whole number, per unit.

    Returns:
        How many units fit: at least 1.

    Raises:
        InputError: If either is not positive, or the length is no multiple.
    """
    check_positive(name, length)
    check_positive(unit_name, unit)
    ratio = float(length) / float(unit)
    count = round(ratio)
    # The tolerance grows with the count: float32 rounding of the length does, too.
    if count < 1 or abs(ratio - count) > rtol * max(1.0, ratio):
        low, high = max(1, math.floor(ratio)) * float(unit), math.ceil(ratio) * float(unit)
        raise InputError(
            f"`{name}` must be a whole multiple of `{unit_name}` = {float(unit):g}; "
            f"got {float(length):g}, which is {ratio:.6g} times it. Nearest: {low:g}"
            + (f" or {high:g}" if high > low else "")
        )
    return count
