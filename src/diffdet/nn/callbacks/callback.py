"""Base class of all callbacks of this wing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffdet.core.errors import InputError
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.callbacks import hook_without_effect

if TYPE_CHECKING:
    from diffdet.nn.models.model import Model
    from diffdet.nn.training.fit_params import FitParams

__all__ = ["Callback"]


class _NoModelError(InputError, AttributeError):
    """A callback runs without a model."""


class Callback(LoopCallback):
    """Base class of callbacks of fits and predictions: hooks that do nothing.

    A hook is called when the event with its name happens; `diffdet.nn.training.events.EVENTS` lists all with their
    meaning, in their order::

        on_train_begin
        for every epoch, training first, then validation:
            on_epoch_begin
            for every fold:
                on_fold_begin
                for every batch:
                    on_batch_begin, on_forwards_end
                    in training: on_backwards_begin, on_backwards_end, on_step_end
                    on_batch_end
                on_fold_end
            on_epoch_end
        on_train_end

    and for predictions ``on_pred_begin``, the events of batches, ``on_pred_end``. Hooks read and write
    ``self.model.fit_params``. Callbacks are called in the order in which they were passed.

    What a callback learns while a fit runs must survive a kill: list its attributes in ``saved`` (see
    `diffdet.loop.callbacks.Callback`).
    """

    transient = ("model", "plot_settings")

    model: Model | None = None
    plot_settings: Any = None

    def set_model(self, model: Model) -> None:
        """Associate the callback with a model.

        Args:
            model: Model whose fit or prediction it is to follow.
        """
        self.model = model

    def set_plot_settings(self, plot_settings: Any) -> None:
        """Choose how pictures look.

        Args:
            plot_settings: A `PlotSettings`.
        """
        self.plot_settings = plot_settings

    @property
    def _model(self) -> Model:
        """The model, for certain."""
        if self.model is None:
            raise _NoModelError(
                f"`{type(self).__name__}` has no model: pass it in `cbs` of `fit` or `predict`, or call `set_model`"
            )
        return self.model

    @property
    def _fit(self) -> FitParams:
        """State of the fit or prediction in progress."""
        fit_params = self._model.fit_params
        if fit_params is None:
            raise _NoModelError(f"no fit or prediction is running, so `{type(self).__name__}` has nothing to follow")
        return fit_params

    def on_train_begin(self) -> None:
        """A fit begins, before the first epoch.

        Raises:
            AttributeError: If no model was set (it is an `InputError`, too).
        """
        _ = self._model

    @hook_without_effect
    def on_epoch_begin(self) -> None:
        """The training or the validation of an epoch begins."""

    @hook_without_effect
    def on_fold_begin(self) -> None:
        """The first batch of a fold is about to be used."""

    @hook_without_effect
    def on_batch_begin(self) -> None:
        """A batch is at hand, and may be replaced."""

    @hook_without_effect
    def on_forwards_end(self) -> None:
        """Predictions and loss of a batch are known."""

    @hook_without_effect
    def on_backwards_begin(self) -> None:
        """The loss is known, gradients are not."""

    @hook_without_effect
    def on_backwards_end(self) -> None:
        """Gradients are known, parameters have not been changed."""

    @hook_without_effect
    def on_step_end(self) -> None:
        """Parameters have been changed."""

    @hook_without_effect
    def on_batch_end(self) -> None:
        """The batch is done."""

    @hook_without_effect
    def on_fold_end(self) -> None:
        """All batches of a fold are done."""

    @hook_without_effect
    def on_epoch_end(self) -> None:
        """The training or the validation of an epoch ends."""

    @hook_without_effect
    def on_train_end(self) -> None:
        """A fit ends."""

    def on_pred_begin(self) -> None:
        """Predictions begin.

        Raises:
            AttributeError: If no model was set (it is an `InputError`, too).
        """
        _ = self._model

    @hook_without_effect
    def on_pred_end(self) -> None:
        """Predictions end."""
