"""Batches of a fold as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.nn.training.batches import Inputs, as_tensor, n_rows, to_rows

__all__ = ["BatchYielder"]


class BatchYielder:
    """Cuts samples into batches of tensors (x, y, w), and (x, y, w, mask) where a mask is given.

    Each iteration over a shuffling yielder gives another order; all of them follow from the seed.

    Args:
        inputs: Array, tensor or table (sample, feature), a matrix, or a tuple (flat, matrix).
        bs: Samples to a batch.
        objective: ``"multiclass classification"`` makes integers, (sample,), of targets; others numbers.
        targets: Targets; `y` is None without.
        weights: Weights, (sample,); `w` is None without.
        shuffle: Whether to shuffle.
        use_weights: Whether to yield weights.
        bulk_move: Whether to move all samples to the device at once, instead of batch by batch.
        input_mask: Columns of the flat features to yield.
        drop_last: Whether to leave out a last batch that is smaller.
        mask: Which objects exist, (sample, object).
        seed: Seed of the shuffling.
        device: Where to; the CPU where None.
        dtype: Type of the tensors; torch's default where None.

    Raises:
        InputError: If `bs` is less than 1, greater than the samples with `drop_last`, or a part no array of numbers.
        ShapeError: If parts differ in their number of samples.
    """

    def __init__(
        self,
        inputs: Any,
        bs: int,
        objective: str,
        targets: Any = None,
        weights: Any = None,
        shuffle: bool = True,
        use_weights: bool = True,
        bulk_move: bool = True,
        input_mask: Sequence[int] | None = None,
        drop_last: bool = True,
        *,
        mask: Any = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        n_classes = 0
        if "multiclass" in objective.lower() and targets is not None:
            n_classes = int(as_tensor("targets", targets).max()) + 1
        self.rows = to_rows(
            inputs,
            targets,
            weights if use_weights else None,
            mask,
            dtype=torch.get_default_dtype() if dtype is None else dtype,
            classes=n_classes,
            input_mask=input_mask,
        )
        self.n_samples = n_rows(self.rows.x)
        if bs < 1 or (drop_last and bs > self.n_samples):
            most = f" to the number of samples, {self.n_samples}," if drop_last else " on"
            raise InputError(f"`bs` must be from 1{most}; got {bs}")
        self.bs, self.shuffle, self.drop_last, self.bulk_move = bs, shuffle, drop_last, bulk_move
        self.device = torch.device("cpu" if device is None else device)
        self.seed = seed
        self._n_iterations = 0
        if bulk_move:
            self.rows = self.rows.map(lambda t: t.to(self.device))

    def __len__(self) -> int:
        """Number of batches."""
        return self.n_samples // self.bs if self.drop_last else -(-self.n_samples // self.bs)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor | None, Tensor | None] | tuple[Any, ...]]:
        rows = self.rows
        if self.shuffle:
            stream = Stream(self.seed, "batches", self._n_iterations)
            order = torch.randperm(self.n_samples, generator=stream.generator())
            self._n_iterations += 1
            rows = rows.map(lambda t: t[order.to(t.device)])
        for batch in rows.batches(self.bs, drop_last=self.drop_last, device=None if self.bulk_move else self.device):
            parts = (batch.x, batch.y, batch.w)
            yield parts if batch.mask is None else (*parts, batch.mask)
