"""Callbacks that steer the optimisers, or save what they have done."""

from __future__ import annotations

from pathlib import Path

from diffdet.core import storage
from diffdet.core.checks import check_positive, did_you_mean
from diffdet.core.errors import InputError
from diffdet.loop.schedules import cosine
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import PostWarmupCallback

__all__ = ["AbsOptSchedule", "EpochSave", "OneCycle"]


class AbsOptSchedule(PostWarmupCallback):
    """Base class of schedules of one optimiser's learning rate and momentum. They begin when all warm-ups are over.

    Inherit and write `schedule`. Values are set before the update that they are for; ``iter_cnt`` counts the updates
    since the schedule began.

    Args:
        opt_name: Name of the optimiser, a key of ``wrapper.opts``.

    Raises:
        InputError: When the fit begins, if there is no such optimiser.
    """

    saved = ("iter_cnt", "n_total")

    def __init__(self, opt_name: str) -> None:
        self.opt_name = opt_name
        self.iter_cnt = 0
        self.n_total = 0

    def schedule(self) -> tuple[float | None, float | None]:
        """Learning rate and momentum for update number ``iter_cnt``; None leaves one as it is."""
        return None, None

    @property
    def updates_per_epoch(self) -> int:
        """Updates of an epoch: batches of passive volumes."""
        fit = self._fit
        if fit.trn_passives is None or fit.passive_bs is None:
            raise InputError(f"`{type(self).__name__}` needs a fit with training volumes; there are none")
        return -(-len(fit.trn_passives) // fit.passive_bs)

    def on_train_begin(self) -> None:
        """Check that the optimiser exists."""
        super().on_train_begin()
        opts = self._wrapper.opts
        if self.opt_name not in opts:
            raise InputError(
                f"`opt_name` must be one of {sorted(opts)}; got {self.opt_name!r}{did_you_mean(self.opt_name, opts)}"
            )
        self.iter_cnt = self.n_total = 0

    def on_epoch_begin(self) -> None:
        """Begin the schedule in the first epoch after the warm-ups."""
        was_active = self.active
        super().on_epoch_begin()
        if self.active and not was_active:
            fit = self._fit
            self.n_total = ((fit.n_epochs or fit.epoch) - fit.epoch + 1) * self.updates_per_epoch
            self._begin()
            self._apply()

    def on_step_end(self) -> None:
        """Set the values of the next update."""
        if self.active:
            self.iter_cnt += 1
            self._apply()

    def _begin(self) -> None:
        """Called once, when the schedule begins."""

    def _apply(self) -> None:
        lr, mom = self.schedule()
        if lr is not None:
            self._wrapper.set_opt_lr(lr, self.opt_name)
        if mom is not None:
            self._wrapper.set_opt_mom(mom, self.opt_name)


class OneCycle(AbsOptSchedule):
    """Smith's one cycle: learning rate up and down again, momentum down and up again.

    Over the first ``warmup_length`` epochs the values go from init to mid, over the remaining epochs of the fit from
    mid to final, both along half a cosine. Epochs count from when the warm-ups are over. Values are exact at the ends:
    the first update has init, the last one final. Values given here override those of the optimiser.

    Args:
        opt_name: Name of the optimiser, a key of ``wrapper.opts``.
        warmup_length: Epochs from init to mid.
        init_lr: Learning rate at the beginning; None leaves learning rates alone.
        init_mom: Momentum (or beta_1) at the beginning; None leaves momenta alone.
        mid_lr: Learning rate at the turn.
        mid_mom: Momentum at the turn.
        final_lr: Learning rate at the end; `init_lr` where None.
        final_mom: Momentum at the end; `init_mom` where None.
        relative: Whether the learning rates are multiples of the one that the optimiser has when the schedule begins,
            for example the one that `OptConfig` set.

    Raises:
        InputError: If init is given without mid or the other way round, a learning rate is not positive, a momentum not
            in [0, 1), or ``warmup_length`` negative; when the fit begins, if there is no such optimiser.

    Reference: L. N. Smith, "A disciplined approach to neural network hyper-parameters: Part 1", arXiv:1803.09820.
    """

    saved = ("base_lr",)

    def __init__(
        self,
        opt_name: str,
        warmup_length: int,
        init_lr: float | None = None,
        init_mom: float | None = None,
        mid_lr: float | None = None,
        mid_mom: float | None = None,
        final_lr: float | None = None,
        final_mom: float | None = None,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__(opt_name)
        if warmup_length < 0:
            raise InputError(f"`warmup_length` must be 0 epochs or more; got {warmup_length}")
        self.warmup_length = warmup_length
        self.relative = relative
        self.base_lr = 1.0
        self.lrs = _three("lr", init_lr, mid_lr, final_lr)
        self.moms = _three("mom", init_mom, mid_mom, final_mom)
        for value in self.lrs or ():
            check_positive("learning rates", value)
        for value in self.moms or ():
            if not 0 <= value < 1:
                raise InputError(f"momenta must lie in [0, 1); got {value}")

    def on_train_begin(self) -> None:
        """Set the initial values already now, unless they are multiples of what warm-ups are to find."""
        super().on_train_begin()
        self.base_lr = 1.0
        lr, mom = self.lrs and self.lrs[0], self.moms and self.moms[0]
        if lr is not None and not self.relative:
            self._wrapper.set_opt_lr(lr, self.opt_name)
        if mom is not None:
            self._wrapper.set_opt_mom(mom, self.opt_name)

    def _begin(self) -> None:
        if self.relative:
            self.base_lr = self._wrapper.get_opt_lr(self.opt_name)

    def schedule(self) -> tuple[float | None, float | None]:
        """Learning rate and momentum for update number ``iter_cnt``, counted from 0 since the schedule began."""
        turn = self.warmup_length * self.updates_per_epoch
        lr, mom = (self._value(values, turn) for values in (self.lrs, self.moms))
        return None if lr is None else lr * self.base_lr, mom

    def _value(self, values: tuple[float, float, float] | None, turn: int) -> float | None:
        if values is None:
            return None
        init, mid, final = values
        if self.iter_cnt < turn:
            return cosine(self.iter_cnt / turn, init, mid)
        return cosine((self.iter_cnt - turn) / max(1, self.n_total - 1 - turn), mid, final)


def _three(kind: str, init: float | None, mid: float | None, final: float | None) -> tuple[float, float, float] | None:
    """Init, mid and final of a quantity, or None where it is not scheduled."""
    if init is None and mid is None and final is None:
        return None
    if init is None or mid is None:
        raise InputError(
            f"`init_{kind}` and `mid_{kind}` must be given together; got init {init}, mid {mid}, final {final}"
        )
    return init, mid, init if final is None else final


class EpochSave(Callback):
    """Saves detector and optimisers at the end of every epoch of training, each epoch to a file of its own.

    The files are ``volume_state_{epoch}.pt`` in the fit's ``cb_savepath``, written by the wrapper's ``save`` and read
    by its ``load``: safetensors, whatever their documented ending suggests.
    """

    def on_epoch_end(self) -> None:
        """Save, if it was an epoch of training."""
        fit = self._fit
        if fit.state == "train":
            folder = storage.make_folder(Path("." if fit.cb_savepath is None else fit.cb_savepath))
            self._wrapper.save(str(folder / f"volume_state_{fit.epoch}.pt"))
