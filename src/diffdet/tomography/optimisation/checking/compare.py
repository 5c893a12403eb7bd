"""Gradients of a training loss against finite differences with common random numbers, family by family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import InputError
from diffdet.kernels.gradient_statistics import cosine, ratio_and_error, relative_errors, signal_and_noise
from diffdet.tomography.optimisation.checking.non_finite import NonFinite, find_non_finite
from diffdet.tomography.optimisation.checking.replay import ReplayedUpdate
from diffdet.tomography.optimisation.parameters import named_parameters
from diffdet.tomography.volume.volume import Volume

__all__ = ["FINE_STEP", "MAX_BIAS", "MAX_BIAS_ERROR", "WIDE_STEP", "FamilyCheck", "GradientCheck", "check_gradients"]

FINE_STEP = 1e-6
"""Step of the differences that the gradient must equal, in units of the family's typical value: so short that no muon
passes an edge on the way, and long enough that float64 leaves eight digits."""

WIDE_STEP = 1e-3
"""Step of the differences that show jumps and corners, in the same unit: short against what an update moves."""

MAX_BIAS = 0.3
"""Largest relative bias that still leaves a gradient useful."""

MAX_BIAS_ERROR = 0.15
"""Largest standard error of the bias with which it can be judged."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FamilyCheck:
    """What was found about the parameters of one family.

    Attributes:
        family: Name of the family.
        n_parameters: Numbers in it.
        verdict: ``"exact"``: the gradient is the derivative for the same random numbers. ``"on average"``: it is not,
            but right on average, as where something was detached to spare noise. ``"jumps"``: it is the derivative
            between jumps that it knows nothing of. ``"wrong"``: it is neither. ``"undecided"``: it is not the
            derivative, and too noisy to tell whether it is right on average. ``"no effect"``: the loss does not depend
            on the family. ``"not finite"``.
        gradient_norm: Length of the mean gradient over all updates, loss per unit.
        cosine: Of gradient and fine differences, for the same random numbers; None where one is zero.
        worst_relative_error: Largest relative deviation of a single parameter.
        worst_parameter: Which one that is.
        bends: Whether the loss visibly bends over a wide step, so that the gradient is good for shorter ones only.
        bias: By how much the gradient, along its own mean, says more than the measured change of the loss: (gradient -
            difference) / difference, over independent updates; None where there is no direction.
        bias_error: Standard error of the bias.
        variance: Summed variance of the gradient of one update.
        signal_to_noise: Signal of one update over its noise; None where nothing varies.
    """

    family: str
    n_parameters: int
    verdict: str
    gradient_norm: float = 0.0
    cosine: float | None = None
    worst_relative_error: float = 0.0
    worst_parameter: str = ""
    bends: bool = False
    bias: float | None = None
    bias_error: float | None = None
    variance: float = 0.0
    signal_to_noise: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the gradient can be followed."""
        return self.verdict in ("exact", "on average", "no effect")


@dataclass(frozen=True)
class GradientCheck:
    """What was found about the gradients of a design.

    Attributes:
        families: One entry for each family, in the order of the panels' declaration.
        non_finite: The first operation that gave something that is not finite; None where all is finite.
        loss: Mean loss over the updates.
        loss_spread: Its standard deviation from update to update.
        n_updates: Updates whose gradients were compared.
        n_muons: Muons simulated.
    """

    families: list[FamilyCheck]
    non_finite: NonFinite | None
    loss: float | None
    loss_spread: float | None
    n_updates: int
    n_muons: int


@dataclass
class _Family:
    """Parameters of one family, and their places in the vector of all."""

    name: str
    names: list[str]
    places: slice
    scale: float


class _Detector:
    """All learnable parameters as one vector that can be moved and put back."""

    def __init__(self, volume: Volume) -> None:
        found = {id(p): (name, p) for name, p in named_parameters(volume).items() if p.requires_grad}
        grouped: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in found.values():
            grouped.setdefault(name.rpartition(".")[2], []).append((name, parameter))
        self.parameters: list[nn.Parameter] = []
        self.families: list[_Family] = []
        start = 0
        for family, entries in grouped.items():
            names = [label for name, p in entries for label in _labels(name, p)]
            values = torch.cat([p.detach().reshape(-1) for _, p in entries])
            scale = float(values.square().mean().sqrt())
            self.families.append(_Family(family, names, slice(start, start + len(names)), scale or 1.0))
            self.parameters += [p for _, p in entries]
            start += len(names)
        self.size = start
        self._before = [p.detach().clone() for p in self.parameters]

    @contextmanager
    def moved(self, by: Tensor) -> Iterator[None]:
        """Move all parameters while in the block."""
        parts = by.split([p.numel() for p in self.parameters])
        with torch.no_grad():
            for parameter, before, part in zip(self.parameters, self._before, parts, strict=True):
                parameter.copy_(before + part.view_as(before))
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, before in zip(self.parameters, self._before, strict=True):
                    parameter.copy_(before)


def _labels(name: str, parameter: Tensor) -> list[str]:
    """A name for each number in a parameter."""
    if parameter.numel() == 1:
        return [name]
    places = torch.cartesian_prod(*(torch.arange(n) for n in parameter.shape)).reshape(parameter.numel(), -1)
    return [f"{name}[{', '.join(map(str, place))}]" for place in places.tolist()]


def check_gradients(
    update: ReplayedUpdate,
    *,
    n_updates: int = 16,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> GradientCheck:
    """Compare the gradients that a fit would follow with central finite differences of the same loss.

    - *The same random numbers*: for every single parameter, gradient and a fine difference of one update. They must
      agree to rounding, unless something between parameter and loss was detached, or jumps.
    - *On average*: for every family, a wide difference along the mean gradient, over independent updates, against what
      the gradient says there. The direction is the mean over other updates than those it is measured with, because a
      direction of chance would agree with its own chance. This sees jumps, and forgives what averages out.
    - *Noise*: mean and variance of the gradient over independent updates.

    Args:
        update: The loss, in float64.
        n_updates: Independent updates, an even number of at least four.
        tolerance: Largest relative error of a single parameter with which a gradient counts as exact.
        progress: Told how many evaluations of the loss are done, of how many, and what goes on.

    Returns:
        GradientCheck.

    Raises:
        InputError: If a number is out of range, the volume is not of float64 numbers, or nothing is learnable.
        NoHitsError: If no volume of an update gives a prediction.
    """
    check_in_range("n_updates", n_updates, 4)
    check_positive("tolerance", tolerance)
    if n_updates % 2:
        raise InputError(f"`n_updates` must be even: one half gives directions, the other measures; got {n_updates}")
    volume = update.wrapper.volume
    detector = _Detector(volume)
    if detector.size == 0:
        raise InputError("there is nothing to check: no panel declares a learnable parameter")
    dtypes = {p.dtype for p in detector.parameters}
    if dtypes != {torch.float64}:
        raise InputError(
            f"`update` must be of a float64 volume, or rounding hides what is compared; got {sorted(map(str, dtypes))}"
        )
    return _Comparison(update, detector, n_updates, tolerance, progress).run()


class _Comparison:
    """The work of `check_gradients`."""

    def __init__(
        self,
        update: ReplayedUpdate,
        detector: _Detector,
        n_updates: int,
        tolerance: float,
        progress: Progress | None,
    ) -> None:
        self.update, self.detector, self.n_updates, self.tolerance = update, detector, n_updates, tolerance
        self.progress = progress
        self.done = 0
        self.broken_at: tuple[int, Tensor] | None = None
        self.total = n_updates + 2 * detector.size + n_updates * len(detector.families)

    def run(self) -> GradientCheck:
        """Compare everything."""
        families = self.detector.families
        losses, gradients = self._gradients()
        if gradients is None:
            culprit = find_non_finite(self.update, len(losses) - 1, self.detector.parameters)
            broken = [FamilyCheck(f.name, len(f.names), "not finite") for f in families]
            return GradientCheck(broken, culprit, None, None, len(losses), self.update.n_muons)
        found = [self._family(family, losses, gradients[:, family.places]) for family in families]
        culprit = None
        if self.broken_at is not None:
            number, displacement = self.broken_at
            with self.detector.moved(displacement):
                culprit = find_non_finite(self.update, number, self.detector.parameters)
        mean, spread = float(losses.mean()), float(losses.std())
        return GradientCheck(found, culprit, mean, spread, self.n_updates, self.update.n_muons)

    def _tell(self, text: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, max(self.total, self.done), text)

    def _gradients(self) -> tuple[Tensor, Tensor | None]:
        """Losses ``(update,)`` and gradients ``(update, parameter)``; None where something is not finite."""
        losses, gradients = [], []
        parameters = self.detector.parameters
        for number in range(self.n_updates):
            with torch.enable_grad():
                loss = self.update(number)
                if not loss.requires_grad:
                    raise InputError(
                        "the loss depends on no learnable parameter: something between panels and loss detaches it"
                    )
                parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            losses.append(loss.detach())
            flat = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
            gradients.append(torch.cat([g.reshape(-1) for g in flat]))
            self._tell("gradients")
            if not bool(torch.isfinite(gradients[-1]).all() & torch.isfinite(losses[-1])):
                return torch.stack(losses), None
        return torch.stack(losses), torch.stack(gradients)

    def _difference(self, number: int, direction: Tensor, step: float, text: str) -> float:
        """Central difference of the loss of an update along a direction in the space of all parameters."""
        values = []
        for sign in (1, -1):
            with self.detector.moved(sign * step * direction):
                values.append(self.update.value(number))
            if not math.isfinite(values[-1]) and self.broken_at is None:
                self.broken_at = number, sign * step * direction
            self._tell(text)
        return (values[0] - values[1]) / (2 * step)

    def _family(self, family: _Family, losses: Tensor, gradients: Tensor) -> FamilyCheck:
        """Everything about one family."""
        fine = self._single(family, FINE_STEP)
        own = gradients[0]
        scale = float(losses.abs().mean())
        rounding = 1e3 * torch.finfo(own.dtype).eps * max(scale, 1e-300) / (FINE_STEP * family.scale)
        noise = signal_and_noise(gradients)
        errors = relative_errors(own, fine, rounding)
        worst = int(errors.argmax())
        check = FamilyCheck(
            family=family.name,
            n_parameters=len(family.names),
            verdict="exact",
            gradient_norm=float(noise.mean.norm()),
            cosine=cosine(own, fine),
            worst_relative_error=float(errors[worst]),
            worst_parameter=family.names[worst],
            variance=float(noise.variance),
            signal_to_noise=noise.signal_to_noise,
        )
        if not bool(torch.isfinite(fine).all()):
            return replace(check, verdict="not finite")
        half = self.n_updates // 2
        direction = gradients[half:].mean(0)
        if float(direction.norm()) <= rounding:
            # A gradient of nothing may be that of a staircase, which only a wide step sees.
            direction = self._single(family, WIDE_STEP)
            if max(float(fine.abs().max()), float(direction.abs().max())) <= rounding:
                return replace(check, verdict="no effect", cosine=None, worst_relative_error=0.0)
        return self._judge(family, gradients[:half], direction / direction.norm(), check)

    def _single(self, family: _Family, step: float) -> Tensor:
        """Differences of update 0 by every parameter of a family."""
        found = []
        for place in range(family.places.start, family.places.stop):
            direction = torch.zeros(self.detector.size, dtype=torch.float64, device=self._device)
            direction[place] = 1
            found.append(self._difference(0, direction, step * family.scale, family.name))
        return torch.tensor(found, dtype=torch.float64, device=self._device)

    @property
    def _device(self) -> torch.device:
        return self.detector.parameters[0].device

    def _judge(self, family: _Family, gradients: Tensor, direction: Tensor, check: FamilyCheck) -> FamilyCheck:
        """Measure the bias along a direction, and decide."""
        exact = check.worst_relative_error <= self.tolerance
        bias, error = self._bias(family, gradients, direction, WIDE_STEP)
        bends = False
        if _too_far(bias, error):
            # A loss that bends looks biased over a wide step, too, but a sixteenth as much over a quarter of it.
            closer, closer_error = self._bias(family, gradients, direction, WIDE_STEP / 4)
            bends = bias is not None and closer is not None and abs(closer) < abs(bias) / 4
            if bends or not exact:
                bias, error = closer, closer_error
        far = _too_far(bias, error)
        check = replace(check, bias=bias, bias_error=error, bends=bends)
        if exact:
            return replace(check, verdict="jumps" if far else "exact")
        if far:
            return replace(check, verdict="wrong")
        judged = bias is not None and error is not None and abs(bias) <= MAX_BIAS and error <= MAX_BIAS_ERROR
        return replace(check, verdict="on average" if judged else "undecided")

    def _bias(
        self, family: _Family, gradients: Tensor, direction: Tensor, step: float
    ) -> tuple[float | None, float | None]:
        """Relative bias along a direction of the family, and its standard error."""
        everywhere = torch.zeros(self.detector.size, dtype=torch.float64, device=self._device)
        everywhere[family.places] = direction
        length = step * family.scale * len(family.names) ** 0.5
        numbers = range(len(gradients))
        measured = gradients.new_tensor(
            [self._difference(number, everywhere, length, f"{family.name} on average") for number in numbers]
        )
        found = ratio_and_error(gradients @ direction - measured, measured)
        return found if found is not None and math.isfinite(found[0]) else (None, None)


def _too_far(bias: float | None, error: float | None) -> bool:
    """Whether a bias is too large, for certain."""
    return bias is not None and error is not None and abs(bias) > MAX_BIAS and abs(bias) > 3 * error
