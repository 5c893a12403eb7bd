"""Batches of an epoch of training: folds and samples in random order, the next fold read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.nn.training.batches import Batch, Rows

__all__ = ["training_batches"]


def _read_ahead(idxs: Sequence[int], load: Callable[[int], Rows]) -> Iterator[tuple[int, Rows]]:
    """Folds in order, each read while the one before it is used."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="folds") as pool:
        coming: Future[Rows] | None = pool.submit(load, idxs[0])
        for place, idx in enumerate(idxs):
            assert coming is not None
            ready = [coming.result()]
            coming = pool.submit(load, idxs[place + 1]) if place + 1 < len(idxs) else None
            yield idx, ready.pop()  # nothing here holds on to the fold


def training_batches(
    fy: Any,
    trn_idxs: Sequence[int],
    bs: int,
    stream: Stream,
    load: Callable[[int, Stream], Rows],
    *,
    bulk_device: torch.device | None,
    device: torch.device,
    drop_last: bool,
    part: tuple[int, int] | None,
    stopped: Callable[[], bool],
) -> Iterator[Batch]:
    """Batches of one epoch of training: folds in random order, samples in random order within each.

    While a fold is trained on, the next one is read by another thread: two folds are in memory at a time.

    Args:
        fy: Source of folds; unused beside `load`, kept for messages.
        trn_idxs: Folds to train on.
        bs: Samples to a batch.
        stream: Stream of the epoch: order of folds, then one child for each fold.
        load: Reads a fold.
        bulk_device: Where to move whole folds; None to move batch by batch.
        device: Where batches are needed.
        drop_last: Whether to leave out the last batch of a fold where it is smaller.
        part: Rows that this process takes of every batch.
        stopped: Whether to end before the next fold.
    """
    order = torch.randperm(len(trn_idxs), generator=stream.generator("folds")).tolist()
    for idx, rows in _read_ahead(
        [trn_idxs[place] for place in order], lambda idx: load(idx, stream.child("fold", idx))
    ):
        if stopped():
            return
        if len(rows) < bs and (drop_last or part is not None):
            raise InputError(
                f"`bs` must be at most the {len(rows)} samples of fold {idx} of {type(fy).__name__}; got {bs}"
            )
        yield from _shuffled(rows, stream.generator("order", idx), bulk_device).batches(
            bs,
            drop_last=drop_last or part is not None,
            part=part,
            fold=idx,
            device=device if bulk_device is None else None,
        )


def _shuffled(rows: Rows, generator: torch.Generator, device: torch.device | None) -> Rows:
    """Samples in random order, moved to a device first where one is given."""
    order = torch.randperm(len(rows), generator=generator)

    def taken(part: Tensor) -> Tensor:
        moved = part if device is None else part.to(device, non_blocking=True)
        return moved[order.to(moved.device)]

    return rows.map(taken)
