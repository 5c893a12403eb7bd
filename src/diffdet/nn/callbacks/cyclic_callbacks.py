"""Learning rates and momenta that go up and down in cycles.

Values are set at the beginning of every batch of training. With t the batch within the cycle and n the batches of the
cycle, t/n goes from 0 to (n-1)/n: the value at the end of a cycle is the one at the beginning of the next.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from diffdet.core import storage
from diffdet.core.checks import check_choice, check_in_range
from diffdet.core.errors import InputError
from diffdet.loop.schedules import cosine, linear, triangle
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.training import distributed

__all__ = ["AbsCyclicCallback", "CycleLR", "CycleMom", "CycleStep", "OneCycle"]


class AbsCyclicCallback(Callback):
    """Base class of callbacks whose effect repeats in cycles; ``fit_params.cyclic_cbs`` lists them.

    Inherit and write `apply`.

    Args:
        interp: ``"cosine"``: half a period from one end of the range to the other; ``"linear"``: a triangle there and
            back.
        param_range: Lower and upper end of the range.
        cycle_mult: Each cycle is so many times as long as the one before.
        decrease_param: Whether a cycle begins at the upper end; ``"auto"`` leaves it to the class.
        scale: Length of the first cycle, epochs.
        cycle_save: Whether to save the model at the end of each cycle, as ``{name of the class}_{cycle}.h5`` in the
            fit's ``cb_savepath``: the members of a snapshot ensemble.

    Attributes:
        cycle_count: Cycles that are done.
        cycle_end: Whether the batch that was just done ended a cycle; true until the next batch of training begins.
        hist: Value of each batch of training.
        cycle_losses: Number of a cycle and validation loss of the epoch in which it ended.

    Raises:
        InputError: If an argument is out of range.
    """

    saved = ("cycle_count", "cycle_end", "t", "n", "hist", "cycle_losses", "_ended_in_epoch")

    def __init__(
        self,
        interp: str,
        param_range: Sequence[float],
        cycle_mult: float = 1.0,
        decrease_param: bool | Literal["auto"] = "auto",
        scale: float = 1.0,
        cycle_save: bool = False,
    ) -> None:
        check_choice("interp", interp, ("cosine", "linear"))
        if len(param_range) != 2:
            raise InputError(f"the range of `{type(self).__name__}` must have two ends; got {list(param_range)}")
        check_in_range("cycle_mult", cycle_mult, 0.0, low_open=True)
        check_in_range("scale", scale, 0.0, low_open=True)
        self.interp = interp
        self.param_range = (min(param_range), max(param_range))
        self.cycle_mult = cycle_mult
        self.decrease_param = self._decreases(interp) if decrease_param == "auto" else decrease_param
        self.scale = scale
        self.cycle_save = cycle_save
        self._reset()

    def _reset(self) -> None:
        self.cycle_count = 0
        self.cycle_end = False
        self.t = 0
        self.n = 1
        self.hist: list[float] = []
        self.cycle_losses: dict[int, float] = {}
        self._ended_in_epoch = False

    def _decreases(self, interp: str) -> bool:
        """Whether a cycle begins at the upper end unless said otherwise."""
        return interp == "cosine"

    @abstractmethod
    def apply(self, value: float) -> None:
        """Set the quantity."""

    def value(self) -> float:
        """Value for batch `t` of a cycle of `n` batches."""
        low, high = self.param_range
        start, end = (high, low) if self.decrease_param else (low, high)
        progress = self.t / self.n
        return cosine(progress, start, end) if self.interp == "cosine" else triangle(progress, start, end)

    def on_train_begin(self) -> None:
        """Begin the first cycle."""
        super().on_train_begin()
        self._reset()
        self.n = max(1, round(self.scale * (self._fit.n_batches or 1)))

    def on_epoch_begin(self) -> None:
        """Forget whether a cycle ended in the epoch before."""
        if self._fit.state == "train":
            self._ended_in_epoch = False

    def on_batch_begin(self) -> None:
        """Set the value of a batch of training."""
        if self._fit.state != "train":
            return
        self.cycle_end = False
        value = self.value()
        self.hist.append(value)
        self.apply(value)

    def on_batch_end(self) -> None:
        """Move on, and begin the next cycle where one is done."""
        if self._fit.state != "train":
            return
        self.t += 1
        if self.t >= self.n:
            self.t = 0
            self.cycle_count += 1
            self.cycle_end = self._ended_in_epoch = True
            self._next_cycle()

    def _next_cycle(self) -> None:
        self.n = max(1, round(self.n * self.cycle_mult))
        if self.cycle_save and distributed.is_writer():
            folder = storage.make_folder(Path("." if self._fit.cb_savepath is None else self._fit.cb_savepath))
            self._model.save(folder / f"{type(self).__name__}_{self.cycle_count}.h5")

    def on_epoch_end(self) -> None:
        """Note the validation loss of an epoch in which a cycle ended."""
        fit = self._fit
        if fit.state == "valid" and self._ended_in_epoch and "loss" in fit.metrics:
            self.cycle_losses[self.cycle_count] = fit.metrics["loss"]

    def plot(self) -> Any:
        """A picture of the value over the batches of the fit.

        Returns:
            The figure.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5))
        axes = figure.add_subplot()
        axes.plot(range(len(self.hist)), self.hist)
        axes.set_xlabel("batch")
        axes.set_ylabel(type(self).__name__)
        return figure


class CycleLR(AbsCyclicCallback):
    """Cycles of the learning rate: under ``"cosine"`` it falls and starts again, under ``"linear"`` it rises first.

    Args:
        lr_range: Lowest and highest learning rate.
        interp: See `AbsCyclicCallback`, as are the others.
        cycle_mult: Growth of cycles.
        decrease_param: Whether to begin at the highest.
        scale: Length of the first cycle, epochs.
        cycle_save: Whether to save the model after each cycle.

    References: I. Loshchilov and F. Hutter, arXiv:1608.03983; L. N. Smith, arXiv:1506.01186.
    """

    def __init__(
        self,
        lr_range: Sequence[float],
        interp: str = "cosine",
        cycle_mult: float = 1.0,
        decrease_param: bool | Literal["auto"] = "auto",
        scale: float = 1.0,
        cycle_save: bool = False,
    ) -> None:
        super().__init__(interp, lr_range, cycle_mult, decrease_param, scale, cycle_save)

    def apply(self, value: float) -> None:
        """Set the learning rate."""
        self._model.set_lr(value)


class CycleMom(AbsCyclicCallback):
    """Cycles of the momentum (or beta_1), against those of `CycleLR`: it rises where the learning rate falls.

    Args:
        mom_range: Lowest and highest momentum.
        interp: See `AbsCyclicCallback`, as are the others.
        cycle_mult: Growth of cycles.
        decrease_param: Whether to begin at the highest.
        scale: Length of the first cycle, epochs.
        cycle_save: Whether to save the model after each cycle.
    """

    def __init__(
        self,
        mom_range: Sequence[float],
        interp: str = "cosine",
        cycle_mult: float = 1.0,
        decrease_param: bool | Literal["auto"] = "auto",
        scale: float = 1.0,
        cycle_save: bool = False,
    ) -> None:
        super().__init__(interp, mom_range, cycle_mult, decrease_param, scale, cycle_save)

    def _decreases(self, interp: str) -> bool:
        return interp == "linear"

    def apply(self, value: float) -> None:
        """Set the momentum."""
        self._model.set_mom(value)


class CycleStep(AbsCyclicCallback):
    """Divides the learning rate once every so many cycles of a constant rate.

    Args:
        frac_reduction: Factor on the learning rate at each step, above 0 and up to 1.
        patience: Length of a cycle, epochs.
        lengths: Lengths of the cycles one by one, epochs, instead of `patience`; the last is repeated.
        cycle_save: Whether to save the model after each cycle.

    Raises:
        InputError: If a number is out of range.
    """

    saved = ("_initial",)

    def __init__(
        self,
        frac_reduction: float,
        patience: float,
        lengths: Sequence[float] | None = None,
        cycle_save: bool = False,
    ) -> None:
        check_in_range("frac_reduction", frac_reduction, 0.0, 1.0, low_open=True)
        self.frac_reduction = frac_reduction
        self.lengths = [patience] if lengths is None else list(lengths)
        for length in self.lengths:
            check_in_range("lengths", length, 0.0, low_open=True)
        self._initial = 0.0
        super().__init__("linear", (0.0, 1.0), scale=self.lengths[0], cycle_save=cycle_save)

    def on_train_begin(self) -> None:
        """Note the learning rate."""
        super().on_train_begin()
        self._initial = self._model.get_lr()

    def value(self) -> float:
        """Learning rate of this cycle."""
        return self._initial * self.frac_reduction**self.cycle_count

    def apply(self, value: float) -> None:
        """Set the learning rate."""
        self._model.set_lr(value)

    def _next_cycle(self) -> None:
        super()._next_cycle()
        length = self.lengths[min(self.cycle_count, len(self.lengths) - 1)]
        self.n = max(1, round(length * (self._fit.n_batches or 1)))


class OneCycle(AbsCyclicCallback):
    """Smith's one cycle: learning rate up and then down to almost nothing, momentum down and up again.

    Over ``lengths[0]`` epochs the learning rate goes from the first to the second value of ``lr_range``, over
    ``lengths[1]`` epochs from there to the third, 0 where there is none; the momentum from the upper end of
    ``mom_range`` to the lower and back. The last batch never quite reaches the final values. (With ``"linear"`` the
    original made a whole triangle of each half, so that the rate ended far from where it should.)

    Args:
        lengths: Epochs up and epochs down.
        lr_range: Learning rate at the start, at the turn, and, optionally, at the end.
        mom_range: Lowest and highest momentum (or beta_1); None leaves it alone.
        interp: ``"cosine"`` or ``"linear"``.
        cycle_ends_training: Whether the fit ends with the cycle; else the final values stay.

    Raises:
        InputError: If an argument is out of range.

    Reference: L. N. Smith, "A disciplined approach to neural network hyper-parameters: Part 1", arXiv:1803.09820.
    """

    saved = ("mom_hist",)

    def __init__(
        self,
        lengths: Sequence[float],
        lr_range: Sequence[float],
        mom_range: Sequence[float] | None = (0.85, 0.95),
        interp: str = "cosine",
        cycle_ends_training: bool = True,
    ) -> None:
        if len(lengths) != 2 or min(lengths) <= 0:
            raise InputError(f"`lengths` must be two lengths above 0, epochs up and epochs down; got {list(lengths)}")
        if len(lr_range) not in (2, 3) or min(lr_range) < 0:
            raise InputError(f"`lr_range` must be two or three learning rates of 0 or more; got {list(lr_range)}")
        if mom_range is not None and len(mom_range) != 2:
            raise InputError(f"`mom_range` must have two ends; got {list(mom_range)}")
        self.lengths = tuple(lengths)
        self.lr_range = (lr_range[0], lr_range[1], lr_range[2] if len(lr_range) == 3 else 0.0)
        self.mom_range = None if mom_range is None else (min(mom_range), max(mom_range))
        self.cycle_ends_training = cycle_ends_training
        self.mom_hist: list[float] = []
        super().__init__(interp, (0.0, 1.0))

    def on_train_begin(self) -> None:
        """Count the batches of both halves."""
        super().on_train_begin()
        self.mom_hist = []
        self.n = sum(self._halves())

    def _halves(self) -> tuple[int, int]:
        n_batches = self._fit.n_batches or 1
        return max(1, round(self.lengths[0] * n_batches)), max(1, round(self.lengths[1] * n_batches))

    def _between(self, start: float, turn: float, end: float) -> float:
        up, down = self._halves()
        shape = cosine if self.interp == "cosine" else linear
        return shape(self.t / up, start, turn) if self.t < up else shape((self.t - up) / down, turn, end)

    def value(self) -> float:
        """Learning rate of the batch."""
        return self.lr_range[2] if self.cycle_count else self._between(*self.lr_range)

    def apply(self, value: float) -> None:
        """Set learning rate and momentum."""
        self._model.set_lr(value)
        if self.mom_range is not None:
            low, high = self.mom_range
            momentum = high if self.cycle_count else self._between(high, low, high)
            self.mom_hist.append(momentum)
            self._model.set_mom(momentum)

    def _next_cycle(self) -> None:
        super()._next_cycle()
        if self.cycle_ends_training and self.cycle_count == 1:
            self._fit.stop = True
            self._fit.stop_reason = "the one cycle is done"
