"""From the folds of a table to batches of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.core.random import Stream

__all__ = [
    "AnyArray",
    "Batch",
    "FoldSource",
    "Inputs",
    "Rows",
    "as_inputs",
    "as_tensor",
    "check_folds",
    "fold_size",
    "is_fold_source",
    "load_fold",
    "n_rows",
    "to_rows",
]

Inputs = Tensor | tuple[Tensor, Tensor]
"""What a network takes: flat features or a matrix, or both."""

AnyArray = Any
"""An array of NumPy, a tensor, or a table of pandas."""


@runtime_checkable
class FoldSource(Protocol):
    """What a fit takes its data from: numbered folds, each a dict of arrays.

    The dict has ``inputs`` (array, or tuple of flat array and matrix), ``targets``, ``weights`` (or None), and
    optionally ``mask`` (sample, object), true where an object exists. A source whose training data differ from epoch to
    epoch has ``get_train_fold(idx, stream)`` in addition.
    """

    def __len__(self) -> int:
        """Number of folds."""
        ...

    def get_fold(self, idx: int) -> Mapping[str, Any]:
        """One fold."""
        ...


class Batch(NamedTuple):
    """Some samples, and where they stand.

    Attributes:
        x: Inputs.
        y: Targets, or None.
        w: Weights, (sample, 1), or None.
        mask: Which objects exist, (sample, object), or None.
        fold: Number of the fold, or None.
        begins_fold: Whether it is the first of its fold.
        ends_fold: Whether it is the last of its fold.
    """

    x: Inputs
    y: Tensor | None = None
    w: Tensor | None = None
    mask: Tensor | None = None
    fold: int | None = None
    begins_fold: bool = False
    ends_fold: bool = False


@dataclass(frozen=True)
class Rows:
    """Samples as tensors, in the type and on the device of a network.

    Attributes:
        x: Inputs.
        y: Targets, or None.
        w: Weights, (sample, 1), or None.
        mask: Which objects exist, or None.
    """

    x: Inputs
    y: Tensor | None = None
    w: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return n_rows(self.x)

    def map(self, function: Callable[[Tensor], Tensor]) -> Rows:
        """Apply a function of tensors to every part."""

        def each(part: Tensor | None) -> Tensor | None:
            return None if part is None else function(part)

        x = (function(self.x[0]), function(self.x[1])) if isinstance(self.x, tuple) else function(self.x)
        return Rows(x, each(self.y), each(self.w), each(self.mask))

    def batches(
        self,
        bs: int | None,
        *,
        drop_last: bool = False,
        part: tuple[int, int] | None = None,
        fold: int | None = None,
        device: torch.device | None = None,
    ) -> Iterator[Batch]:
        """Cut into batches, in order.

        Args:
            bs: Samples to a batch; all in one where None.
            drop_last: Whether to leave out a last batch that is smaller.
            part: First row, and last plus one, to take of every batch; all where None.
            fold: Number to write on the batches.
            device: Where to move each batch; none is moved where None.
        """
        n = len(self)
        bs = max(1, n) if bs is None else bs
        starts = range(0, n - bs + 1 if drop_last else n, bs)
        for start in starts:
            low, high = (start, min(n, start + bs)) if part is None else (start + part[0], start + part[1])
            rows = self.map(lambda t, low=low, high=high: t[low:high])
            if device is not None:
                rows = rows.map(lambda t: t.to(device, non_blocking=True))
            ends = start == starts[-1]
            yield Batch(rows.x, rows.y, rows.w, rows.mask, fold, start == 0, ends)


def n_rows(x: Inputs) -> int:
    """Number of samples; of a tuple, that of its parts, not the number of parts."""
    return len(x[0] if isinstance(x, tuple) else x)


def is_fold_source(value: object) -> bool:
    """Whether a value yields folds."""
    return hasattr(value, "get_fold") and hasattr(value, "__len__")


def as_tensor(name: str, value: AnyArray, dtype: torch.dtype | None = None) -> Tensor:
    """An array, a tensor or a table as a tensor, without a copy where that is possible.

    Args:
        name: Name of the argument, for messages.
        value: What to convert.
        dtype: Type of the tensor; that of the value where None.

    Raises:
        InputError: If it does not consist of numbers.
    """
    if not isinstance(value, Tensor):
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        array = np.asarray(value)
        if array.dtype == object or array.dtype.kind not in "biuf":
            raise InputError(f"`{name}` must consist of numbers; got an array of dtype {array.dtype}")
        if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="), copy=True)
        value = torch.from_numpy(array)
    return value if dtype is None else value.to(dtype)


def as_inputs(x: AnyArray, dtype: torch.dtype, input_mask: Sequence[int] | None = None) -> Inputs:
    """Inputs as tensors.

    Args:
        x: Array, tensor or table, (sample, feature) or (sample, ...); or a tuple of flat features and matrix.
        dtype: Type of the tensors.
        input_mask: Columns of the flat features that the network sees; all where None.

    Raises:
        ShapeError: If the parts of a tuple have different numbers of samples.
        InputError: If a column that the network needs is not there.
    """
    if isinstance(x, tuple | list) and len(x) == 2 and not np.isscalar(x[0]) and _is_pair(x):
        flat, matrix = as_tensor("inputs[0]", x[0], dtype), as_tensor("inputs[1]", x[1], dtype)
        if len(flat) != len(matrix):
            raise ShapeError(
                f"`inputs` must have as many rows of flat features as matrices; got {len(flat)} and {len(matrix)}"
            )
        return _columns(flat, input_mask), matrix
    return _columns(as_tensor("inputs", x, dtype), input_mask)


def _is_pair(x: Sequence[Any]) -> bool:
    """Whether a sequence of two is (flat, matrix), and not two rows of numbers."""
    return isinstance(x, tuple) or all(getattr(part, "ndim", 1) >= 2 for part in x)


def _columns(flat: Tensor, input_mask: Sequence[int] | None) -> Tensor:
    if input_mask is None:
        return flat
    needed = max(input_mask, default=-1) + 1
    if flat.ndim < 2 or flat.shape[-1] < needed:
        raise InputError(f"`inputs` must have at least {needed} flat features; got shape {tuple(flat.shape)}")
    return flat[..., torch.as_tensor(list(input_mask), device=flat.device)]


def to_rows(
    inputs: AnyArray,
    targets: AnyArray = None,
    weights: AnyArray = None,
    mask: AnyArray = None,
    *,
    dtype: torch.dtype,
    classes: int = 0,
    labels: bool = False,
    input_mask: Sequence[int] | None = None,
) -> Rows:
    """Samples as tensors.

    Args:
        inputs: See `as_inputs`.
        targets: True values; 1-D ones become (sample, 1), unless they are class numbers.
        weights: Weights, (sample,) or (sample, 1).
        mask: Which objects exist, (sample, object).
        dtype: Type of the network.
        classes: Number of classes where targets are class numbers, which become integers, (sample, ...); 0 where they
            are not.
        labels: Whether targets must be from 0 to 1.
        input_mask: See `as_inputs`.

    Raises:
        ShapeError: If a part has another number of samples than the inputs.
        InputError: If a part does not consist of numbers, a weight is not finite, a target is the number of no class or
            no label, or a mask holds something else than true and false.
    """
    x = as_inputs(inputs, dtype, input_mask)
    y = w = m = None
    if targets is not None:
        y = as_tensor("targets", targets)
        if classes:
            y = _class_numbers(y, classes)
            y = y.squeeze(-1) if y.ndim > 1 and y.shape[-1] == 1 else y
        else:
            y = _labels(y).to(dtype) if labels else y.to(dtype)
            y = y.unsqueeze(-1) if y.ndim == 1 else y
    if weights is not None:
        w = as_tensor("weights", weights, dtype).reshape(-1, 1)
        if not bool(torch.isfinite(w).all()):
            raise InputError(f"`weights` must be finite; {int((~torch.isfinite(w)).sum())} of {len(w)} are not")
    if mask is not None:
        m = as_tensor("mask", mask)
        if m.dtype is not torch.bool:
            if not bool(((m == 0) | (m == 1)).all()):
                raise InputError("`mask` must be true where an object exists, else false; got numbers beside 0 and 1")
            m = m.bool()
    for name, part in (("targets", y), ("weights", w), ("mask", m)):
        if part is not None and len(part) != n_rows(x):
            raise ShapeError(f"`{name}` must have one row for each of the {n_rows(x)} samples; got {len(part)}")
    return Rows(x, y, w, m)


def _class_numbers(targets: Tensor, n_classes: int) -> Tensor:
    """Targets as integers, after refusing what is the number of no class."""
    bad = ~((targets >= 0) & (targets < n_classes))
    if targets.is_floating_point():
        bad |= targets != targets.floor()
    if bool(bad.any()):
        first = targets[bad][0].item()
        raise InputError(
            f"`targets` must be the numbers of {n_classes} classes, 0 to {n_classes - 1}; {int(bad.sum())} of "
            f"{targets.numel()} are not, such as {first:g}"
        )
    return targets.long()


def _labels(targets: Tensor) -> Tensor:
    """Targets, after refusing what is not from 0 to 1."""
    bad = ~((targets >= 0) & (targets <= 1))
    if bool(bad.any()):
        raise InputError(
            f"`targets` must be from 0 to 1 for a binary cross-entropy; {int(bad.sum())} of {targets.numel()} are not, "
            f"such as {targets[bad][0].item():g}"
        )
    return targets


def load_fold(
    fy: Any,
    idx: int,
    *,
    dtype: torch.dtype,
    classes: int,
    labels: bool = False,
    use_weights: bool = True,
    input_mask: Sequence[int] | None = None,
    stream: Stream | None = None,
    with_targets: bool = True,
) -> Rows:
    """One fold as tensors on the CPU.

    Args:
        fy: Source of folds.
        idx: Number of the fold.
        dtype: Type of the network.
        classes: Number of classes where targets are class numbers, else 0.
        labels: Whether targets must be from 0 to 1.
        use_weights: Whether to take weights, where there are any.
        input_mask: Columns that the network sees.
        stream: Where random changes of training data come from; None for data as they are.
        with_targets: Whether targets must be there.

    Raises:
        InputError: If the fold has no targets, or something else that cannot be used.
    """
    draws = getattr(fy, "get_train_fold", None) if stream is not None else None
    data: Mapping[str, Any] = fy.get_fold(idx) if draws is None else draws(idx, stream)
    if with_targets and data.get("targets") is None:
        raise InputError(f"fold {idx} of `fy` must have targets to train or evaluate on; it holds {sorted(data)}")
    weights = data.get("weights") if use_weights else None
    mask, targets = data.get("mask"), data.get("targets") if with_targets else None
    return to_rows(
        data["inputs"], targets, weights, mask, dtype=dtype, classes=classes, labels=labels, input_mask=input_mask
    )


def fold_size(fy: Any, idx: int) -> int:
    """Number of samples of a fold, without reading it where the source knows."""
    size = getattr(fy, "fold_size", None)
    if callable(size):
        return int(size(idx))  # type: ignore[arg-type]
    inputs = fy.get_fold(idx)["inputs"]
    return len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)


def check_folds(name: str, idxs: Sequence[int], n_folds: int) -> list[int]:
    """Refuse numbers of folds that do not exist or come twice.

    Returns:
        The numbers as a list of its own: the caller's is never touched.

    Raises:
        InputError: If one is out of range or there twice, or there is none.
    """
    found = [int(idx) for idx in idxs]
    wrong = [idx for idx in found if not 0 <= idx < n_folds]
    if wrong or not found or len(set(found)) < len(found):
        raise InputError(f"`{name}` must be different numbers of folds from 0 to {n_folds - 1}; got {found}")
    return found
