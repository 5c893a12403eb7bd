"""Which learning rate to begin with: the loss of fresh networks under a rising one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffdet.core.random import Stream, key_seed
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.nn.callbacks.opt_callbacks import LRFinder
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder

__all__ = ["lr_find", "plot_lr_finders"]


def lr_find(
    fy: Any,
    model_builder: ModelBuilder,
    bs: int,
    n_epochs: int = 1,
    train_on_weights: bool = True,
    n_repeats: int = -1,
    lr_bounds: tuple[float, float] = (1e-5, 10.0),
    cb_partials: Sequence[Callable[[], LoopCallback]] | None = None,
    bulk_move: bool = True,
    *,
    seed: int | None = None,
    device: Any = None,
) -> list[LRFinder]:
    """Train fresh networks while the learning rate rises from batch to batch.

    Args:
        fy: Source of folds.
        model_builder: Describes the network.
        bs: Samples to a batch.
        n_epochs: Epochs over which the learning rate rises.
        train_on_weights: Whether to use the weights of the data.
        n_repeats: Networks to train, each without another fold; as many as there are folds where negative.
        lr_bounds: First and last learning rate.
        cb_partials: Make further callbacks: classes, or partials, called without arguments.
        bulk_move: Whether to move whole folds to the device.
        seed: Root of all random numbers; where None, drawn from torch's default generator.
        device: Where to train.

    Returns:
        One `LRFinder` for each network, with what it measured; `LRFinder.suggest` names a rate.

    Raises:
        InputError: If an argument cannot be used.
    """
    n_folds = len(fy)
    n_repeats = n_folds if n_repeats < 0 else n_repeats
    key = Stream.from_torch().key if seed is None else (int(seed),)
    finders: list[LRFinder] = []
    for number in range(n_repeats):
        finder = LRFinder(lr_bounds)
        own = key_seed(*key, "lr_find", number)
        model = Model(model_builder, seed=own, device=device)
        left_out = number % n_folds if n_folds > 1 else None
        model.fit(
            n_epochs,
            fy,
            bs,
            bulk_move,
            train_on_weights,
            [idx for idx in range(n_folds) if idx != left_out],
            None,
            [*(make() for make in cb_partials or ()), finder],
            Path("."),
            seed=own,
        )
        finders.append(finder)
    return finders


def plot_lr_finders(
    finders: Sequence[LRFinder],
    loss_range: tuple[float, float] | None = None,
    log_y: bool = False,
) -> Any:
    """A picture of the losses against the learning rate: each network, and the mean where all were measured.

    Args:
        finders: What `lr_find` returns.
        loss_range: Range of the loss to show.
        log_y: Whether losses are shown on a logarithmic scale.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    histories = [finder.get_history() for finder in finders]
    for rates, losses in histories:
        axes.plot(rates, losses, color="0.8")
    shared = min((len(rates) for rates, _ in histories), default=0)
    if shared:
        means = [sum(losses[k] for _, losses in histories) / len(histories) for k in range(shared)]
        axes.plot(histories[0][0][:shared], means, color="C0", label=f"mean of {len(histories)}")
        axes.legend()
    axes.set_xscale("log")
    axes.set_yscale("log" if log_y else "linear")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    if loss_range is not None:
        axes.set_ylim(*loss_range)
    return figure
