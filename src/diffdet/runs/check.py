"""The job `check`: whether the gradients of a design are right, how noisy they are, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError
from diffdet.runs.config import RunConfig, as_mapping, load_config, to_yaml
from diffdet.runs.doctor import versions
from diffdet.runs.folder import RunFolder
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

if TYPE_CHECKING:
    from diffdet.tomography.optimisation.checking import FamilyCheck, GradientCheck

__all__ = ["check"]

_RESULT_VERSION: Final = 1
_LITTLE: Final = 0.3
"""Signal to noise of one update below which more muons are worth advising."""


def check(
    config: RunConfig | str | Path | None,
    *,
    updates: int = 16,
    muons: int | None = None,
    tolerance: float = 1e-3,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare the gradients of a design with finite differences, in float64, and advise.

    The loss is that of the first training update of the design, callbacks included; nothing is updated.

    Args:
        config: A configuration, its file, or the name of a built-in design; None for the default one.
        updates: Independent updates, an even number of at least four.
        muons: Muons per volume; those of the configuration where None.
        tolerance: Largest relative error of a parameter with which its gradient counts as exact.
        out: Folder, new or empty, for `config.yaml` and `result.json`; None writes nothing.
        command: How the job was called, for the result.
        progress: Told ``(done, total, text)``.

    Returns:
        Content of `result.json`; `agree` is the answer.

    Raises:
        InputError: If an argument or the configuration cannot be used; nothing has been written.
        NoHitsError: If no muon leaves enough hits for a prediction.
        StorageError: If the folder cannot be written.
    """
    started = time.monotonic()
    keep_to_one_thread()
    found = config if isinstance(config, RunConfig) else load_config(config)
    if muons is not None:
        if muons < 1:
            raise InputError(f"--muons: expected at least 1, given {muons}")
        section = found.muons.model_copy(update={"per_volume": muons})
        found = found.model_copy(update={"muons": section})
    if updates < 4 or updates % 2:
        raise InputError(f"--updates: expected an even number of at least 4, given {updates}")
    if not 0 < tolerance < 1:
        raise InputError(f"--tolerance: expected a number between 0 and 1, given {tolerance:g}")
    folder = None if out is None else _usable(RunFolder(Path(out)))
    outcome = _compare(found, updates, tolerance, progress)
    result = _result(found, outcome, tolerance, command, time.monotonic() - started)
    return result if folder is None else _save(folder, found, result)


def _usable(folder: RunFolder) -> RunFolder:
    """Refuse a folder that cannot take the result, before the work."""
    folder.check_new()
    place = folder.path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"--out: expected a folder that can be written, given {str(folder.path)!r}; {place} cannot")
    return folder


@contextmanager
def _double_precision() -> Iterator[None]:
    """Let everything that is built be of float64 numbers, for the block."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _compare(config: RunConfig, updates: int, tolerance: float, progress: Progress | None) -> GradientCheck:
    """Build the design and check it."""
    import torch

    from diffdet.runs.build import build, resolve_device
    from diffdet.tomography.optimisation.checking import ReplayedUpdate, check_gradients

    if resolve_device(config.device).type == "mps":
        raise InputError(f"device: expected one with float64 numbers, cpu or cuda, given {config.device!r}")
    with _double_precision():
        built = build(config)
        built.volume.to(torch.float64)
        with ReplayedUpdate(
            built.wrapper,
            built.train,
            n_mu_per_volume=config.muons.per_volume,
            mu_bs=config.muons.batch_size,
            passive_bs=config.volumes_per_update,
            cbs=built.callbacks,
            n_epochs=config.schedule.total_epochs,
        ) as update:
            return check_gradients(update, n_updates=updates, tolerance=tolerance, progress=progress)


def _name(family: str) -> str:
    """A family as the configuration names it."""
    return "budget" if family == "budget_weights" else family


def _result(
    config: RunConfig, outcome: GradientCheck, tolerance: float, command: str, seconds: float
) -> dict[str, Any]:
    """Content of `result.json`."""
    moving = {key.partition(".")[0] for key in config.optimiser}
    families = {_name(family.family): _figures(family, _name(family.family) in moving) for family in outcome.families}
    judged = [f for f in outcome.families if _name(f.family) in moving]
    agree = outcome.non_finite is None and bool(judged) and all(f.agrees for f in judged)
    return {
        "format_version": _RESULT_VERSION,
        "kind": "check",
        "status": "complete",
        "agree": agree,
        "reason": _reason(judged, outcome),
        "name": config.name,
        "seed": config.seed,
        "device": config.device,
        "command": command,
        "updates": outcome.n_updates,
        "volumes_per_update": config.volumes_per_update,
        "muons_per_volume": config.muons.per_volume,
        "tolerance": tolerance,
        "loss": outcome.loss,
        "loss_spread": outcome.loss_spread,
        "families": families,
        "non_finite": None if outcome.non_finite is None else outcome.non_finite.as_mapping(),
        "advice": _advice(config, outcome, moving),
        "muons_simulated": outcome.n_muons,
        "wall_seconds": round(seconds, 3),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
    }


def _figures(family: FamilyCheck, moves: bool) -> dict[str, Any]:
    return {
        "moves": moves,
        "verdict": family.verdict,
        "parameters": family.n_parameters,
        "gradient_norm": family.gradient_norm,
        "cosine": family.cosine,
        "worst_relative_error": family.worst_relative_error,
        "worst_parameter": family.worst_parameter,
        "bias": family.bias,
        "bias_se": family.bias_error,
        "variance": family.variance,
        "signal_to_noise": family.signal_to_noise,
    }


def _reason(judged: list[FamilyCheck], outcome: GradientCheck) -> str:
    """The answer in a sentence."""
    if outcome.non_finite is not None:
        return f"not finite: {outcome.non_finite}"
    if not judged:
        return "no family of parameters that the panels have is to be optimised"
    bad = [f"{_name(f.family)} ({f.verdict})" for f in judged if not f.agrees]
    if bad:
        return f"the gradient cannot be relied on for {', '.join(bad)}"
    return "the gradients of all families that move agree with finite differences"


def _advice(config: RunConfig, outcome: GradientCheck, moving: set[str]) -> list[str]:
    """What to do about what was found."""
    if outcome.non_finite is not None:
        return [
            "Make the argument of the operation safe before the operation (a mask after it does not keep its "
            "derivative finite); `diffdet.kernels.safe_math` has roots, norms, logarithms and quotients that are."
        ]
    advice = []
    for family in outcome.families:
        name = _name(family.family)
        if name not in moving:
            continue
        advice += [f"{name}: {text}" for text in _about(family, config, outcome.n_updates)]
    return advice


def _about(family: FamilyCheck, config: RunConfig, n_updates: int) -> list[str]:
    """Advice on one family."""
    if family.verdict == "no effect":
        return [
            "the loss does not depend on it; leave it out of `optimiser`, or use panels whose response depends on it"
        ]
    found = []
    bias = "" if family.bias is None else f" ({_percent(family.bias)} ± {_percent(family.bias_error)})"
    if family.verdict == "wrong":
        found.append(
            f"the gradient is not the derivative of the loss, nor right on average{bias}; the worst parameter is "
            f"{family.worst_parameter}. Look for what is detached, rounded or computed without torch between it and "
            "the loss"
        )
    elif family.verdict == "undecided":
        found.append(
            "the gradient is not the derivative of the loss for the same random numbers, and too noisy to tell whether "
            f"it is right on average{bias}; more updates (--updates) or muons (--muons) can decide"
        )
    elif family.verdict == "on average":
        found.append(
            "the gradient is not the derivative of the loss for the same random numbers, but right on average"
            f"{bias}: something on the way is detached, or jumps, and averages out"
        )
    if family.verdict == "jumps":
        found.append(
            f"the loss jumps, which its gradient does not see{bias}: smoother panels are needed. Raise `smooth`, use "
            "SigmoidDetectorPanel, or let the `response` of your own panel fall off smoothly"
        )
    elif family.bends:
        found.append(
            "over a thousandth of its size the loss already bends away from the gradient; smoother panels, more muons "
            "or smaller steps would help"
        )
    ratio = family.signal_to_noise
    if ratio is not None and ratio < _LITTLE:
        if ratio * n_updates**0.5 < 1:
            found.append(
                f"no signal was seen in {n_updates} updates, so it is below {1 / n_updates**0.5:.2g} of the noise: an "
                "update moves it at random. More muons, or a start from which the loss has somewhere to fall"
            )
        else:
            wanted = ceil(config.muons.per_volume / ratio**2 / 100) * 100
            found.append(
                f"in an update the signal is {ratio:.2g} of the noise; about {wanted:,} muons a volume instead of "
                f"{config.muons.per_volume:,} (or as many more volumes an update) would make them equal"
            )
    return found


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.2g} %"


def _save(folder: RunFolder, config: RunConfig, result: dict[str, Any]) -> dict[str, Any]:
    """Write the folder."""
    lock = folder.lock()
    try:
        folder.check_new()
        folder.write_config(to_yaml(as_mapping(config) | {"versions": versions()}))
        return folder.write_result(result)
    finally:
        lock.release()
