"""Arrays of NumPy to kernels of torch and back, without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffdet.core.errors import InputError

__all__ = ["Array", "call", "to_tensor"]

Array = NDArray[Any]


def to_tensor(name: str, values: Any) -> Tensor:
    """Numbers as a tensor of a floating type.

    Raises:
        InputError: If they are no numbers.
    """
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.to(torch.float64)
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must consist of numbers; got {array.dtype}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), copy=True)
    return torch.from_numpy(array) if array.ndim else torch.tensor(array.item(), dtype=torch.float64)


def call(kernel: Callable[..., Any], **arguments: Any) -> Any:
    """A kernel of arrays: tensors give tensors, all else gives arrays or plain numbers."""
    tensors = {name: to_tensor(name, value) for name, value in arguments.items()}
    dtype = max((t.dtype for t in tensors.values()), key=lambda d: torch.finfo(d).bits)
    shapes = [t.to(dtype) for t in tensors.values()]
    result = kernel(*torch.broadcast_tensors(*shapes))
    if any(isinstance(value, Tensor) for value in arguments.values()):
        return result
    if isinstance(result, tuple):
        return tuple(_back(part) for part in result)
    return _back(result)


def _back(result: Tensor) -> Any:
    return result.numpy() if result.ndim else result.item()
