"""Callbacks that act on the detectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.loop.schedules import logarithmic
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import PostWarmupCallback
from diffdet.tomography.volume.panel import AbsPanel

__all__ = ["PanelCentring", "PanelUpdateLimiter", "SigmoidPanelSmoothnessSchedule"]


class PanelCentring(Callback):
    """After every update, puts all panels of a layer at the mean xy of the layer's panels.

    Panels keep parameters of their own: the next update moves each by its own gradient, once. Nothing moves while a
    warm-up keeps the detector.

    Raises:
        NotSupportedError: If a detector layer has no panels, or one without an xy position.
    """

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Centre the panels of every detector layer."""
        if self._fit.skip_opt_step:
            return
        for layer in self._wrapper.get_detectors():
            positions = [panel.parameter_families().get("xy_pos") for panel in layer.yield_panels()]
            found: list[Tensor] = [position for position in positions if position is not None]
            if not found or len(found) < len(positions):
                raise NotSupportedError(
                    f"`PanelCentring` needs layers of panels with an xy position; {type(layer).__name__} at "
                    f"{layer.pos!r} has {len(positions)} panels, {len(found)} with a position"
                )
            mean = torch.stack(found).mean(0)
            for position in found:
                position.copy_(mean)


class PanelUpdateLimiter(Callback):
    """Limits how far one update can move a panel: larger changes are cut to the limit, component by component.

    Args:
        max_xy_step: Most that xy may change by, in x and y, m; None does not limit it.
        max_z_step: Most that z may change by, m.
        max_xy_span_step: Most that the span may change by, in x and y, m.

    Raises:
        InputError: If a limit is not positive.
    """

    transient = ("_before",)

    def __init__(
        self,
        max_xy_step: tuple[float, float] | None = None,
        max_z_step: float | None = None,
        max_xy_span_step: tuple[float, float] | None = None,
    ) -> None:
        self.limits: dict[str, list[float]] = {}
        steps = {"xy_pos": max_xy_step, "z_pos": max_z_step, "xy_span": max_xy_span_step}
        for name, step in steps.items():
            if step is not None:
                values = [float(value) for value in ([step] if isinstance(step, int | float) else step)]
                for value in values:
                    check_positive(f"limit of {name}", value)
                self.limits[name] = values
        self._before: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_backwards_end(self) -> None:
        """Remember where the panels are."""
        self._before = []
        for panel in self._wrapper.volume.yield_panels():
            for name, parameter in panel.parameter_families().items():
                if name in self.limits:
                    limit = parameter.new_tensor(self.limits[name])
                    self._before.append((parameter, parameter.detach().clone(), limit))

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Bring back what moved too far."""
        for parameter, before, limit in self._before:
            parameter.copy_(torch.clamp(parameter, before - limit, before + limit))
        self._before = []


class SigmoidPanelSmoothnessSchedule(PostWarmupCallback):
    """Anneals the smoothness of sigmoid panels from one value to another, in equal ratios per epoch.

    A smooth edge is unphysical but lets muons beyond it pull on the panel; a sharp one is close to the real panel. All
    panels have the first value until the warm-ups are over; it then goes to the second, which the last epoch has.

    Args:
        smooth_range: Initial and final smoothness, above 0.

    Raises:
        InputError: If a value is not positive; when the fit begins, if no panel has a smoothness.
    """

    saved = ("activation_epoch",)

    def __init__(self, smooth_range: tuple[float, float]) -> None:
        for value in smooth_range:
            check_positive("smooth_range", value)
        self.smooth_range = smooth_range
        self.activation_epoch = 0

    def on_train_begin(self) -> None:
        """Give all panels the first value."""
        super().on_train_begin()
        self.activation_epoch = 0
        if not list(self._smooth_panels()):
            raise InputError(
                "`SigmoidPanelSmoothnessSchedule` needs panels with a smoothness, such as SigmoidDetectorPanel"
            )
        self._set(self.smooth_range[0])

    def on_epoch_begin(self) -> None:
        """Set the value of an epoch of training."""
        was_active = self.active
        super().on_epoch_begin()
        fit = self._fit
        if fit.state != "train" or not self.active:
            return
        if not was_active:
            self.activation_epoch = fit.epoch
        n_steps = (fit.n_epochs or fit.epoch) - self.activation_epoch
        progress = (fit.epoch - self.activation_epoch) / n_steps if n_steps else 1.0
        self._set(logarithmic(progress, *self.smooth_range))

    def _smooth_panels(self) -> Iterator[AbsPanel]:
        return (panel for panel in self._wrapper.volume.yield_panels() if hasattr(panel, "smooth"))

    def _set(self, smooth: float) -> None:
        for panel in self._smooth_panels():
            panel.smooth = smooth  # type: ignore[assignment]
