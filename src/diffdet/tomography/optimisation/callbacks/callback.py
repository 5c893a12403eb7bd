"""Base class of all callbacks of this wing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffdet.core.errors import InputError
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.callbacks import hook_without_effect

if TYPE_CHECKING:
    from diffdet.tomography.optimisation.fit_params import FitParams
    from diffdet.tomography.optimisation.wrapper.volume_wrapper import AbsVolumeWrapper

__all__ = ["Callback"]


class _NoWrapperError(InputError, AttributeError):
    """A callback runs without a wrapper."""


class Callback(LoopCallback):
    """Base class of callbacks of fits and predictions: eighteen hooks that do nothing.

    A hook is called when the event with its name happens; `diffdet.tomography.optimisation.events.EVENTS` lists all
    with their meaning, in their order::

        on_train_begin
        for every epoch, training first, then validation:
            on_epoch_begin
            for every batch of passive volumes:
                on_volume_batch_begin
                for every volume:
                    on_volume_begin
                    for every batch of muons:
                        on_mu_batch_begin, on_scatter_end, on_mu_batch_end
                    on_x0_pred_begin, on_x0_pred_end, on_volume_end
                on_volume_batch_end
                in training: on_backwards_begin, on_backwards_end, on_step_end
            on_epoch_end
        on_train_end

    and for predictions ``on_pred_begin``, the events of volumes, ``on_pred_end``. Hooks read and write
    ``self.wrapper.fit_params``. Callbacks are called in the order in which they were passed.

    What a callback learns while a fit runs must survive a kill: list its attributes in ``saved`` (see
    `diffdet.loop.callbacks.Callback`).
    """

    wrapper: AbsVolumeWrapper | None = None

    def set_wrapper(self, wrapper: AbsVolumeWrapper) -> None:
        """Associate the callback with a wrapper.

        Args:
            wrapper: Volume wrapper whose fit or prediction it is to follow.
        """
        self.wrapper = wrapper

    @property
    def _wrapper(self) -> AbsVolumeWrapper:
        """The wrapper, for certain."""
        if self.wrapper is None:
            raise _NoWrapperError(
                f"`{type(self).__name__}` has no wrapper: pass it in `cbs` of `fit` or `predict`, or call `set_wrapper`"
            )
        return self.wrapper

    @property
    def _fit(self) -> FitParams:
        """State of the fit or prediction in progress."""
        fit_params = self._wrapper.fit_params
        if fit_params is None:
            raise _NoWrapperError(f"no fit or prediction is running, so `{type(self).__name__}` has nothing to follow")
        return fit_params

    def on_train_begin(self) -> None:
        """A fit begins, before the first epoch.

        Raises:
            AttributeError: If no wrapper was set (it is an `InputError`, too).
        """
        _ = self._wrapper

    @hook_without_effect
    def on_epoch_begin(self) -> None:
        """The training or the validation of an epoch begins."""

    @hook_without_effect
    def on_volume_batch_begin(self) -> None:
        """A batch of passive volumes begins."""

    @hook_without_effect
    def on_volume_begin(self) -> None:
        """A passive volume has been loaded."""

    @hook_without_effect
    def on_mu_batch_begin(self) -> None:
        """A batch of muons exists, above the volume."""

    @hook_without_effect
    def on_scatter_end(self) -> None:
        """Scatterings of the batch of muons are inferred, not yet added to the volume's inferrer."""

    @hook_without_effect
    def on_mu_batch_end(self) -> None:
        """Scatterings of the batch of muons have been added to the volume's inferrer."""

    @hook_without_effect
    def on_x0_pred_begin(self) -> None:
        """All muons of a volume have been added; its prediction is about to be made."""

    @hook_without_effect
    def on_x0_pred_end(self) -> None:
        """The prediction is made, the loss is not yet computed."""

    @hook_without_effect
    def on_volume_end(self) -> None:
        """The loss of a volume has been added to that of its batch."""

    @hook_without_effect
    def on_volume_batch_end(self) -> None:
        """The mean loss of a batch of volumes is known and may be replaced."""

    @hook_without_effect
    def on_backwards_begin(self) -> None:
        """The loss is known, gradients are not."""

    @hook_without_effect
    def on_backwards_end(self) -> None:
        """Gradients are known, parameters have not been changed."""

    @hook_without_effect
    def on_step_end(self) -> None:
        """Parameters have been changed, unless a warm-up keeps them; they have not been brought into bounds."""

    @hook_without_effect
    def on_epoch_end(self) -> None:
        """The training or the validation of an epoch ends."""

    @hook_without_effect
    def on_train_end(self) -> None:
        """A fit ends."""

    def on_pred_begin(self) -> None:
        """Predictions begin.

        Raises:
            AttributeError: If no wrapper was set (it is an `InputError`, too).
        """
        _ = self._wrapper

    @hook_without_effect
    def on_pred_end(self) -> None:
        """Predictions end."""
