"""Callbacks that look at or change gradients and learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError
from diffdet.loop.schedules import logarithmic
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.training import distributed

__all__ = ["GradClip", "LRFinder"]


class GradClip(Callback):
    """Limits gradients: by the norm over all parameters, or element by element.

    Args:
        clip: Largest norm, or largest size of an element; 0 for no limit.
        clip_norm: Whether to limit the norm.

    Raises:
        InputError: If `clip` is negative or not finite.
    """

    def __init__(self, clip: float, clip_norm: bool = True) -> None:
        if not (math.isfinite(clip) and clip >= 0):
            raise InputError(f"`clip` must be 0 or more, and finite; got {clip}")
        self.clip = clip
        self.clip_norm = clip_norm

    def on_backwards_end(self) -> None:
        """Limit the gradients of a batch."""
        if self.clip > 0:
            parameters = self._model.parameters()
            if self.clip_norm:
                torch.nn.utils.clip_grad_norm_(parameters, self.clip)
            else:
                torch.nn.utils.clip_grad_value_(parameters, self.clip)


class LRFinder(Callback):
    """Raises the learning rate from batch to batch, in equal ratios, notes the loss, and ends where it explodes.

    Use `diffdet.nn.training.lr_find.lr_find`, which starts from fresh weights and compares several folds.

    Args:
        lr_bounds: First and last learning rate.
        nb: Number of batches from the first to the last; those of the fit where None.

    Attributes:
        lrs: Learning rate of each batch.
        losses: Loss of each batch.

    Raises:
        InputError: If the bounds are not positive and rising.

    Reference: L. N. Smith, arXiv:1506.01186, section 3.3.
    """

    saved = ("lrs", "losses")
    transient = ("_n",)

    def __init__(self, lr_bounds: tuple[float, float] = (1e-7, 10.0), nb: int | None = None) -> None:
        for bound in lr_bounds:
            check_positive("lr_bounds", bound)
        if len(lr_bounds) != 2 or lr_bounds[0] >= lr_bounds[1]:
            raise InputError(f"`lr_bounds` must be the first and a higher last learning rate; got {lr_bounds}")
        self.lr_bounds = lr_bounds
        self.nb = nb
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self._n = 1

    def on_train_begin(self) -> None:
        """Begin at the first learning rate."""
        super().on_train_begin()
        fit = self._fit
        self.lrs, self.losses = [], []
        self._n = self.nb or (fit.n_batches or 1) * (fit.n_epochs or 1)

    def on_batch_begin(self) -> None:
        """Set the learning rate of a batch of training."""
        if self._fit.state == "train":
            rate = logarithmic(len(self.lrs) / max(1, self._n - 1), *self.lr_bounds)
            self._model.set_lr(rate)
            self.lrs.append(rate)

    def on_backwards_begin(self) -> None:
        """Note the loss; end where it is a hundred times the best or not a number. Such an update is left out."""
        fit = self._fit
        assert fit.loss_val is not None
        # Processes that train together must end at the same batch.
        loss = distributed.mean_over_processes({"loss": fit.loss_val.item()})["loss"]
        self.losses.append(loss)
        best = min((value for value in self.losses if math.isfinite(value)), default=math.inf)
        if not math.isfinite(loss) or loss > 100.0 * best or len(self.losses) >= self._n:
            fit.stop = True
            fit.stop_reason = "the range of learning rates is explored"
            if fit.update is not None and not math.isfinite(loss):
                # What it came for; nothing else need end the fit because of it.
                fit.update.skip = True
                fit.loss_val = torch.zeros_like(fit.loss_val)

    def get_history(self) -> tuple[list[float], list[float]]:
        """Learning rates and finite losses of the batches."""
        pairs = [(rate, loss) for rate, loss in zip(self.lrs, self.losses, strict=False) if math.isfinite(loss)]
        return [rate for rate, _ in pairs], [loss for _, loss in pairs]

    def suggest(self, smoothing: float = 0.9) -> float:
        """A learning rate to begin with: a tenth of the one at which the smoothed loss is lowest.

        Args:
            smoothing: Weight of the past in the running mean, 0 up to below 1.

        Raises:
            InputError: If nothing has been measured.
        """
        rates, losses = self.get_history()
        if not rates:
            raise InputError("`LRFinder` has measured nothing yet: pass it in `cbs` of a fit first")
        smooth, mean = [], losses[0]
        for count, loss in enumerate(losses, 1):
            mean = smoothing * mean + (1.0 - smoothing) * loss if count > 1 else loss
            smooth.append(mean)
        return rates[min(range(len(smooth)), key=smooth.__getitem__)] / 10.0

    def plot(self, n_skip: int = 0, n_max: int | None = None, lim_y: tuple[float, float] | None = None) -> Any:
        """A picture of the loss against the learning rate.

        Args:
            n_skip: Batches to leave out at the beginning.
            n_max: Batches to show at most.
            lim_y: Range of the loss.

        Returns:
            The figure.
        """
        from matplotlib.figure import Figure

        rates, losses = self.get_history()
        stop = None if n_max is None else n_skip + n_max
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rates[n_skip:stop], losses[n_skip:stop])
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        if lim_y is not None:
            axes.set_ylim(*lim_y)
        return figure
