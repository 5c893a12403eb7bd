"""Callbacks that watch the initial detector for some epochs before it is changed, and those that wait for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffdet.core.checks import check_positive, did_you_mean
from diffdet.core.errors import InputError, NoHitsError
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["CostCoefWarmup", "OptConfig", "PostWarmupCallback", "WarmupCallback"]

_log = logging.getLogger(__name__)


class WarmupCallback(Callback):
    """Watches the first epochs of a fit, while the detector is kept as it is.

    Gradients are computed, but the optimisers do not step. Several warm-ups take turns, in the order in which they were
    passed; ``warmup_active`` is true for the one whose turn it is. When the last is over, the detector is free.

    To write one, inherit, and call the hooks of this class from your own.

    Args:
        n_warmup: Epochs of training to watch; 0 watches nothing and sets nothing.

    Raises:
        InputError: If ``n_warmup`` is negative.
    """

    saved = ("warmup_active", "epoch_cnt")

    def __init__(self, n_warmup: int) -> None:
        if n_warmup < 0:
            raise InputError(f"`n_warmup` must be 0 epochs or more; got {n_warmup}")
        self.n_warmup = n_warmup
        self.warmup_active = False
        self.epoch_cnt = 0

    @property
    def finished(self) -> bool:
        """Whether this warm-up is over."""
        return self.epoch_cnt >= self.n_warmup

    def on_train_begin(self) -> None:
        """Keep the detector as it is; the first warm-up begins."""
        super().on_train_begin()
        self.epoch_cnt = 0
        self._fit.skip_opt_step = True
        self.warmup_active = self is self._all()[0]

    def on_epoch_begin(self) -> None:
        """Pass the turn on where this warm-up is over."""
        if self._fit.state == "train":
            self.check_warmups()

    def on_epoch_end(self) -> None:
        """Count the epochs of training in which it was this warm-up's turn."""
        if self._fit.state == "train" and self.warmup_active:
            self.epoch_cnt += 1

    def check_warmups(self) -> None:
        """If this warm-up is over, let the next begin, or free the detector where there is none."""
        if not (self.warmup_active and self.finished):
            return
        self.warmup_active = False
        following = self._all()[self._all().index(self) + 1 :]
        if following:
            following[0].warmup_active = True
        else:
            self._fit.skip_opt_step = False

    @property
    def _is_last_epoch(self) -> bool:
        """Whether the epoch of training that ends was the last of this warm-up."""
        return self._fit.state == "train" and self.warmup_active and self.n_warmup > 0 and self.finished

    def _all(self) -> list[WarmupCallback]:
        """Warm-ups of this fit, in their order."""
        return self._fit.warmup_cbs or [self]


class PostWarmupCallback(Callback):
    """Waits until all warm-ups are over; from then on ``active`` is true.

    To write one, inherit, and call the hooks of this class from your own.
    """

    saved = ("active",)
    active: bool = False

    def on_train_begin(self) -> None:
        """Begin inactive."""
        super().on_train_begin()
        self.active = False

    def on_epoch_begin(self) -> None:
        """Become active in the first epoch after the warm-ups."""
        if self._fit.state == "train" and not self.active:
            self.check_warmups()

    def check_warmups(self) -> None:
        """Become active if every warm-up is over."""
        self.active = all(callback.finished for callback in self._fit.warmup_cbs or ())


class CostCoefWarmup(WarmupCallback):
    """Sets the weight of the cost in the loss to the median error of the initial detector.

    Error and cost then count the same at the start. The median is taken over the volumes of all warm-up epochs that
    gave a prediction.

    Args:
        n_warmup: Epochs of training to watch.

    Raises:
        InputError: When the fit begins, if there is no loss with ``cost_coef`` and ``sub_losses``.
        NoHitsError: When the warm-up ends, if no volume gave a prediction.
    """

    saved = ("errors",)

    def __init__(self, n_warmup: int) -> None:
        super().__init__(n_warmup)
        self.errors: list[Tensor] = []

    def on_train_begin(self) -> None:
        """Forget what was watched before."""
        super().on_train_begin()
        self.errors = []
        if not hasattr(self._wrapper.loss_func, "cost_coef"):
            raise InputError("`CostCoefWarmup` needs a loss with `cost_coef`, such as an `AbsDetectorLoss`")

    def on_volume_end(self) -> None:
        """Note the error of a volume."""
        fit = self._fit
        if fit.state == "train" and self.warmup_active and fit.pred is not None:
            sub_losses = getattr(self._wrapper.loss_func, "sub_losses", {})
            self.errors.append(sub_losses["error"].detach().reshape(()).cpu().clone())

    def on_epoch_end(self) -> None:
        """Set the weight when the last epoch is over."""
        super().on_epoch_end()
        if not self._is_last_epoch:
            return
        if not self.errors:
            raise NoHitsError(
                f"no volume gave a prediction in {self.n_warmup} warm-up epochs, so there is no error to set "
                "`cost_coef` by; check that muons hit the detectors"
            )
        coefficient = torch.stack(self.errors).median()
        loss: Any = self._wrapper.loss_func
        loss.cost_coef = coefficient
        self.errors = []
        _log.info("cost coefficient set to %.6g", float(coefficient))


class OptConfig(WarmupCallback):
    """Sets learning rates such that parameters move by a wanted distance per update.

    The gradients of the initial detector are watched, and the learning rate of an optimiser becomes its rate divided by
    the median of the absolute gradient over all its parameters and updates. That fits optimisers whose step is learning
    rate times gradient (SGD); momentum, and adaptive optimisers such as Adam, move parameters by another distance.
    Put it behind `NoMoreNaNs` in the list of callbacks, so that it sees repaired gradients.

    Args:
        n_warmup: Epochs of training to watch.
        rates: Wanted distance per update by name of the optimiser, in units of its parameters: m for positions and
            spans. An optimiser that is not named keeps its learning rate. Only the first parameter group is considered.

    Raises:
        InputError: If a rate is not positive; when the fit begins, if there is no such optimiser; when the warm-up
            ends, if no gradient was seen or the median is 0, because then no learning rate gives the wanted distance.

    Example:
        ``OptConfig(n_warmup=2, rates={"xy_pos_opt": 0.01, "z_pos_opt": 0.005})``
    """

    saved = ("stats", "lrs")

    def __init__(self, n_warmup: int, rates: Mapping[str, float]) -> None:
        super().__init__(n_warmup)
        for name, rate in rates.items():
            check_positive(f"rates[{name!r}]", rate)
        self.rates = dict(rates)
        self.stats: dict[str, list[Tensor]] = {}
        self.lrs: dict[str, float] = {}

    def on_train_begin(self) -> None:
        """Forget what was watched before."""
        super().on_train_begin()
        opts = self._wrapper.opts
        for name in self.rates:
            if name not in opts:
                raise InputError(f"`rates` must name optimisers {sorted(opts)}; got {name!r}{did_you_mean(name, opts)}")
        self.stats, self.lrs = {name: [] for name in self.rates}, {}

    def on_backwards_end(self) -> None:
        """Note the gradients."""
        if not self.warmup_active:
            return
        for name, stats in self.stats.items():
            parameters = self._wrapper.opts[name].param_groups[0]["params"]
            stats += [p.grad.detach().abs().reshape(-1).cpu() for p in parameters if p.grad is not None]

    def on_epoch_end(self) -> None:
        """Set the learning rates when the last epoch is over."""
        super().on_epoch_end()
        if not self._is_last_epoch:
            return
        for name, stats in self.stats.items():
            median = float(torch.cat(stats).nanmedian()) if stats else float("nan")
            if not median > 0:
                raise InputError(
                    f"the median gradient of `{name}` is {median:g} over {self.n_warmup} warm-up epochs, so no "
                    f"learning rate moves its parameters by {self.rates[name]:g} per update: leave it out of `rates` "
                    "and set its learning rate yourself, or check that the detector is hit"
                )
            self.lrs[name] = self.rates[name] / median
            self._wrapper.set_opt_lr(self.lrs[name], name)
            _log.info("%s: median gradient %.6g, learning rate %.6g", name, median, self.lrs[name])
        self.stats = {name: [] for name in self.rates}
