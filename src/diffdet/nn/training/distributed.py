"""Training by several processes that share every batch: gradients are averaged, decisions are taken together.

The processes are those of `torch.distributed`, as ``torchrun`` starts them. Each takes its part of every batch; after
backward, gradients and the loss are averaged, so every process takes the same step. Validation is done by every process
as a whole, so that metrics, early stopping and the best model are the same everywhere. Only the first process writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.loop.callbacks import Callback
from diffdet.loop.checkpoint import Checkpoints
from diffdet.loop.interrupts import Interruptible

if TYPE_CHECKING:
    from diffdet.nn.training.fit_params import FitParams

__all__ = [
    "AverageGradients",
    "FollowerCheckpoints",
    "is_writer",
    "mean_over_processes",
    "part_of_batch",
    "process_group",
    "rank",
    "same_key",
    "same_start",
    "wait",
    "world_size",
]


def _on() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Number of this process; 0 where there is one."""
    return torch.distributed.get_rank() if _on() else 0


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _on() else 1


def is_writer() -> bool:
    """Whether this process writes files: the first one does."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device | str = "cpu") -> Iterator[int]:
    """Join the processes that ``torchrun`` started, and leave them when the block ends.

    Args:
        device: Where to train: NCCL on CUDA, Gloo elsewhere.

    Yields:
        Number of this process among those on its machine; 0 without ``torchrun``, where the block does nothing else.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _on():
        yield local
        return
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(local)
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield local
    finally:
        torch.distributed.destroy_process_group()


def part_of_batch(bs: int) -> tuple[int, int]:
    """First and last row, plus one, that this process takes of every batch.

    Raises:
        InputError: If the batch cannot be shared equally.
    """
    n = world_size()
    if bs % n:
        raise InputError(f"`bs` must be a multiple of the {n} processes that train together; got {bs}")
    part = bs // n
    return rank() * part, (rank() + 1) * part


def same_start(net: nn.Module) -> None:
    """Give every process the weights of the first one."""
    if _on():
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                whole = tensor.detach().clone(memory_format=torch.contiguous_format)  # views are not exchanged right
                torch.distributed.broadcast(whole, 0)
                tensor.copy_(whole)


def same_key(key: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Give every process the key of the first one."""
    if not _on():
        return key
    number = torch.tensor([part for part in key if isinstance(part, int)], dtype=torch.int64, device=_device())
    torch.distributed.broadcast(number, 0)
    numbers = iter(number.tolist())
    keys = [next(numbers) if isinstance(part, int) else part for part in key]
    return tuple(keys)


def wait() -> None:
    """Wait until every process is here."""
    if _on():
        torch.distributed.barrier()


def mean_over_processes(values: Mapping[str, float], device: torch.device | None = None) -> dict[str, float]:
    """Mean of numbers over the processes, each of which has as many samples as another."""
    if not _on() or not values:
        return dict(values)
    summed = torch.tensor(list(values.values()), dtype=torch.float64, device=device or _device())
    torch.distributed.all_reduce(summed)
    return dict(zip(values, (summed / world_size()).tolist(), strict=True))


def _device() -> torch.device:
    """Where tensors to be exchanged must be."""
    nccl = torch.distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


class AverageGradients(Callback):
    """Averages gradients, losses and batch-norm statistics over the processes; a fit puts it before other callbacks.

    Signals are exchanged with the gradients, so that all processes end at the same batch.
    """

    transient = ("_interrupts",)

    def __init__(self, net: nn.Module, *, interruptible: bool = False) -> None:
        self.net = net
        self.interruptible = interruptible
        self._interrupts: Interruptible | None = None

    def on_train_begin(self) -> None:
        """Begin from the same weights, and listen to signals."""
        same_start(self.net)
        if self.interruptible:
            self._interrupts = Interruptible()
            self._interrupts.__enter__()

    def on_backwards_end(self) -> None:
        """Average the gradients of all processes."""
        fit: FitParams = self.state  # type: ignore[assignment]
        update = self.state.update
        assert update is not None
        grads = [p.grad for p in update.parameters if p.grad is not None]
        if not grads:  # an overflow under mixed precision has taken them away, in all processes alike
            return
        number = None if self._interrupts is None else self._interrupts.signal_number
        loss = fit.loss_val
        says = [float(number or 0), 0.0 if loss is None else loss.detach()]
        flat = torch.cat([*(g.reshape(-1) for g in grads), *(g.new_tensor([v]) for v in says for g in grads[:1])])
        torch.distributed.all_reduce(flat)
        flat /= world_size()
        first = 0
        for grad in grads:
            grad.copy_(flat[first : first + grad.numel()].view_as(grad))
            first += grad.numel()
        if first < flat.numel():
            self._take(fit, flat[first:])

    def _take(self, fit: FitParams, says: Tensor) -> None:
        """Take over what the processes say beside their gradients: the mean loss, and whether one is to end."""
        fit.loss_val = says[1].clone()
        if self.interruptible and float(says[0]) > 0:
            assert self.loop is not None
            number = None if self._interrupts is None else self._interrupts.signal_number
            self.loop.interrupt(number or _SIGTERM)

    def on_epoch_end(self) -> None:
        """Average the running statistics of batch-norm layers, which each process has of its own part."""
        if self.state.phase != "train":
            return
        # What is not saved follows from how the network was built, and is the same everywhere.
        saved = self.net.state_dict(keep_vars=True).values()
        with torch.no_grad():
            for buffer in saved:
                if buffer.is_floating_point() and not isinstance(buffer, nn.Parameter):
                    mean = buffer.clone(memory_format=torch.contiguous_format)
                    torch.distributed.all_reduce(mean)
                    buffer.copy_(mean / world_size())

    def release(self) -> None:
        """Give signals back."""
        if self._interrupts is not None:
            self._interrupts.__exit__(None, None, None)
            self._interrupts = None


_SIGTERM = 15


class FollowerCheckpoints(Checkpoints):
    """Checkpoints of the first process, as the others see them: to be read, never written."""

    def __init__(self, leader: Checkpoints, *, resume: bool) -> None:
        super().__init__(
            leader.folder,
            every_epochs=leader.every_epochs,
            every_seconds=None,
            keep=leader.keep,
            monitor=leader.monitor,
            lower_is_better=leader.lower_is_better,
        )
        self._resume = resume

    def start(self) -> None:
        """The first process prepares the folder."""

    def save(self, tree: Any, *, best: bool = False, about: Mapping[str, Any] | None = None) -> Path:  # noqa: ARG002
        """The first process saves."""
        return self.folder

    def __len__(self) -> int:
        return super().__len__() if self._resume else 0
