"""Arrays of folds: names, values that do not exist, columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError

__all__ = ["Array", "as_columns", "check_names", "filled", "split"]

Array = NDArray[Any]
"""An array of NumPy."""


def check_names(name: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known.

    Args:
        name: Name of the argument, for the message.
        names: What was given.
        known: What is allowed.

    Raises:
        InputError: If one is unknown; the message names it, the known ones and the nearest.
    """
    for given in names:
        if given not in known:
            near = did_you_mean(str(given), known)
            raise InputError(f"`{name}` must be among {', '.join(map(repr, known)) or 'nothing'}; got {given!r}{near}")


def filled(name: str, values: Array, idx: int) -> Array:
    """Values with 0 for NaN, after refusing infinite ones."""
    if values.dtype.kind != "f":
        return values
    if np.isinf(values).any():
        where = tuple(int(k) for k in np.argwhere(np.isinf(values))[0])
        raise InputError(f"`{name}` must be finite, or NaN for what does not exist; fold {idx} is not at {where}")
    absent = np.isnan(values)
    return np.where(absent, values.dtype.type(0), values) if absent.any() else values


def as_columns(values: Array | None) -> Array | None:
    """1-D values as one column; others as they are."""
    if values is None:
        return None
    return values[:, None] if values.ndim == 1 else np.asarray(values)


def split(name: str, values: Array) -> dict[str, Array]:
    """Columns of an array: under the name itself where there is one, else numbered."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 1:
        return {name: flat[:, 0]}
    return {f"{name}_{k}": flat[:, k] for k in range(flat.shape[1])}
