"""Many models of one description, each validated on another fold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffdet.core import storage
from diffdet.core.errors import FileDamagedError, InputError
from diffdet.core.random import Stream, key_seed
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.checkpoint import Checkpoints
from diffdet.nn.callbacks.cyclic_callbacks import AbsCyclicCallback
from diffdet.nn.callbacks.monitors import EarlyStopping, MetricLogger, SaveBest
from diffdet.nn.metrics import EvalMetric
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from diffdet.nn.training import distributed
from diffdet.nn.training.batches import check_folds

__all__ = ["fold_plan", "train_models"]

RESULT = "result.json"
"""Name of the file in a model's folder that says that its training is over, and how it went."""


def fold_plan(
    n_folds: int,
    n_models: int,
    excl_idxs: Sequence[int] | None = None,
    unique_trn_idxs: bool = False,
) -> list[tuple[list[int], int]]:
    """Folds of each model: those to train on, and the one to validate on.

    Args:
        n_folds: Number of folds.
        n_models: Number of models.
        excl_idxs: Folds that no model sees.
        unique_trn_idxs: Whether no two models train on the same fold; else each trains on all but its validation fold.

    Raises:
        InputError: If there are too few folds.
    """
    left_out = set() if not excl_idxs else set(check_folds("excl_idxs", excl_idxs, n_folds))
    folds = [idx for idx in range(n_folds) if idx not in left_out]
    if n_models < 1:
        raise InputError(f"`n_models` must be at least 1; got {n_models}")
    if len(folds) < 2:
        raise InputError(f"`fy` must have at least two folds, to train and to validate; got {len(folds)}")
    if not unique_trn_idxs or n_models == 1:
        chosen = [folds[k % len(folds)] for k in range(n_models)]
        return [([idx for idx in folds if idx != val_idx], val_idx) for val_idx in chosen]
    if n_models > len(folds):
        raise InputError(
            f"`n_models` must be at most the {len(folds)} folds where no two models share one; got {n_models}"
        )
    shares = [folds[k::n_models] for k in range(n_models)]
    return [(share, shares[(k + 1) % n_models][0]) for k, share in enumerate(shares)]


def train_models(
    fy: Any,
    n_models: int,
    bs: int,
    model_builder: ModelBuilder,
    n_epochs: int,
    patience: int | None = None,
    cb_partials: Sequence[Callable[[], LoopCallback]] | None = None,
    metric_partials: Sequence[Callable[[], EvalMetric]] | None = None,
    save_best: bool = True,
    savepath: str | Path = Path("train_weights"),
    excl_idxs: Sequence[int] | None = None,
    unique_trn_idxs: bool = False,
    bulk_move: bool = True,
    train_on_weights: bool = True,
    *,
    seed: int | None = None,
    resume: bool = False,
    progress: bool = False,
    device: Any = None,
    amp: bool | str = False,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[int, float]]]:
    """Train several models of one description.

    Model number i validates on fold i (modulo the number of folds) and trains on the others. Each has a folder of its
    own, ``model_id_{i}`` in ``savepath``, with its checkpoints and, once it is done, ``train_{i}.h5`` and
    ``result.json``. A training that was killed goes on, model by model and bit for bit, with ``resume``.

    Args:
        fy: Source of folds.
        n_models: Number of models.
        bs: Samples to a batch.
        model_builder: Describes the models. Initial weights and chosen features differ from model to model.
        n_epochs: Most epochs of a model.
        patience: Epochs, or cycles, without a new best before a model's training ends; None for no such end.
        cb_partials: Make the callbacks of a model: classes, or partials, called without arguments.
        metric_partials: Make its metrics.
        save_best: Whether a model ends with its best weights; else with its last.
        savepath: Where to.
        excl_idxs: Folds that no model sees.
        unique_trn_idxs: Whether no two models train on the same fold.
        bulk_move: Whether to move whole folds to the device.
        train_on_weights: Whether to use the weights of the data.
        seed: Root of all random numbers; where None, drawn from torch's default generator.
        resume: Whether to go on with what is in ``savepath``. Pass the same arguments as before.
        progress: Whether to show progress on standard error.
        device: Where to train; torch's default device where None.
        amp: Automatic mixed precision; see `Model.fit`.

    Returns:
        For each model: its result (``path``, ``loss`` and one value for each metric), its history (losses and metrics
        by epoch), and the validation losses at the ends of its cycles.

    Raises:
        InputError: If an argument cannot be used, or ``savepath`` holds models and ``resume`` is not set.
    """
    plan = fold_plan(len(fy), n_models, excl_idxs, unique_trn_idxs)
    root = Path(savepath)
    if not resume and any((root / f"model_id_{k}").exists() for k in range(n_models)):
        raise InputError(f"`savepath` holds models: {str(root)!r}; choose another folder, or pass `resume=True`")
    key = distributed.same_key(Stream.from_torch().key if seed is None else (int(seed),))
    distributed.wait()  # nobody writes before everybody has looked
    results: list[dict[str, Any]] = []
    histories: list[dict[str, Any]] = []
    cycle_losses: list[dict[int, float]] = []
    for number, (trn_idxs, val_idx) in enumerate(plan):
        folder = root / f"model_id_{number}"
        done = _read_result(folder) if resume else None
        if done is None:
            own = key_seed(*key, "model", number)
            logger, metrics = MetricLogger(), [make() for make in metric_partials or ()]
            callbacks: list[LoopCallback] = [make() for make in cb_partials or ()]
            callbacks += [*metrics, logger]
            if patience is not None:
                callbacks.append(EarlyStopping(patience))
            if save_best:
                callbacks.append(SaveBest())
            model = Model(model_builder, seed=own, device=device)
            model.fit(
                n_epochs,
                fy,
                bs,
                bulk_move,
                train_on_weights,
                trn_idxs,
                val_idx,
                callbacks,
                folder,
                seed=own,
                checkpoint=Checkpoints(folder / "checkpoints"),
                resume=resume,
                progress=progress,
                amp=amp,
            )
            done = _finish(folder, number, model, logger, callbacks, save_best)
        results.append({**done["result"], "path": str(folder)})
        histories.append(done["history"])
        cycle_losses.append({int(cycle): loss for cycle, loss in done["cycle_losses"].items()})
    return results, histories, cycle_losses


def _finish(
    folder: Path,
    number: int,
    model: Model,
    logger: MetricLogger,
    callbacks: Sequence[LoopCallback],
    save_best: bool,
) -> dict[str, Any]:
    """Save a trained model and say how its training went."""
    losses, metrics = logger.get_loss_history()
    cyclic = next((cb for cb in callbacks if isinstance(cb, AbsCyclicCallback)), None)
    done = {
        "result": {"number": number, **logger.get_results(save_best)},
        "history": {"losses": losses, "metrics": metrics},
        "cycle_losses": {} if cyclic is None else {str(k): v for k, v in cyclic.cycle_losses.items()},
    }
    if distributed.is_writer():
        storage.make_folder(folder)
        model.save(folder / f"train_{number}.h5")
        storage.write_json(folder / RESULT, _plain(done))
    distributed.wait()
    return done


def _plain(value: Any) -> Any:
    """A value in which numbers that are not finite are texts, which `float` reads, because JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    return [_numbers(inner) for inner in value] if isinstance(value, list) else value


def _read_result(folder: Path) -> dict[str, Any] | None:
    """How a model's training went; None where it is not over."""
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _numbers(json.loads(text))
    except ValueError as error:
        raise FileDamagedError(f"`{folder / RESULT}` is damaged: {error}") from error
