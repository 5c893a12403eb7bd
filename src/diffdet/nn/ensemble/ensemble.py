"""Several models whose predictions are averaged with weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from diffdet.core import storage
from diffdet.core.checks import check_choice
from diffdet.core.errors import CheckpointError, FileDamagedError, InputError
from diffdet.loop import packing
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.nn.models import _builder_files
from diffdet.nn.models._predict import mean_over_variants, variants
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from diffdet.nn.training.batches import is_fold_source

__all__ = ["Ensemble"]

FORMAT: Final = "diffdet-ensemble"
FORMAT_VERSION: Final = 1
DESCRIPTION: Final = "ensemble.json"


class Ensemble:
    """Models that predict together: the prediction is ``sum_i w_i p_i``, with weights that sum to 1.

    Args:
        model_builder: Describes the models.

    Attributes:
        models: The models.
        weights: Their weights, which sum to 1.
        results: What is known of each: its folder, loss and metrics.
        model_builder: As given.
    """

    def __init__(self, model_builder: ModelBuilder | None = None) -> None:
        self.model_builder = model_builder
        self.models: list[Model] = []
        self.weights: list[float] = []
        self.results: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, idx: int) -> tuple[Model, float]:
        return self.models[idx], self.weights[idx]

    def __repr__(self) -> str:
        weights = ", ".join(f"{weight:.3g}" for weight in self.weights)
        return f"Ensemble of {len(self)} models with the weights {weights}"

    # ------------------------------------------------------------------------------------------------------------- make
    @classmethod
    def from_models(
        cls,
        models: Iterable[Model],
        weights: Sequence[float] | np.ndarray | None = None,
        results: Sequence[Mapping[str, Any]] | None = None,
        model_builder: ModelBuilder | None = None,
    ) -> Self:
        """An ensemble of models that are there.

        Args:
            models: The models.
            weights: Their weights, which are divided by their sum; equal ones where None.
            results: What is known of each.
            model_builder: Describes the models; that of the first where None.

        Raises:
            InputError: If there are no models, or not one finite weight of 0 or more for each.
        """
        found = list(models)
        if not found:
            raise InputError("`models` must hold at least one model; got none")
        ensemble = cls(found[0].model_builder if model_builder is None else model_builder)
        ensemble.models = found
        ensemble.weights = _normalised([1.0] * len(found) if weights is None else weights, len(found))
        ensemble.results = [dict(result) for result in results or ()]
        return ensemble

    @classmethod
    def from_results(
        cls,
        results: Sequence[Mapping[str, Any]],
        size: int,
        model_builder: ModelBuilder,
        metric: str = "loss",
        weighting: str = "reciprocal",
        higher_metric_better: bool = False,
        snapshot_args: Mapping[str, Any] | None = None,
    ) -> Self:
        """An ensemble of the best of the models that `train_models` trained.

        Args:
            results: First of what `train_models` returns.
            size: How many models.
            model_builder: Describes them.
            metric: By what they are judged, a key of the results.
            weighting: ``"reciprocal"``: a weight of 1 over the metric, or the metric itself where higher is better;
                ``"uniform"``: equal weights.
            higher_metric_better: Whether a higher value of the metric is better.
            snapshot_args: Takes models at the ends of cycles, too, that callbacks with ``cycle_save`` saved:
                ``cycle_losses`` (third of what `train_models` returns), ``n_cycles`` (how many of the last cycles of
                each model; all where not given) and ``load_cycles_only`` (whether to leave out the final models).

        Raises:
            InputError: If the metric is unknown or there are too few models.
            StorageError: If a file is missing.
        """
        check_choice("weighting", weighting, ("reciprocal", "uniform"))
        if not 1 <= size <= len(results):
            raise InputError(f"`size` must be from 1 to the {len(results)} models of `results`; got {size}")
        for result in results:
            if metric not in result:
                raise InputError(f"`metric` must be one of {sorted(set(result) - {'path', 'number'})}; got {metric!r}")
        sign = -1.0 if higher_metric_better else 1.0
        order = sorted(range(len(results)), key=lambda k: _rank(sign * float(results[k][metric])))[:size]
        members = [(results[k], _file_of(results[k]), float(results[k][metric])) for k in order]
        if snapshot_args is not None:
            if metric != "loss":
                raise InputError(f"`metric` must be 'loss' for snapshots, of which the loss is known; got {metric!r}")
            members = _with_cycles(members, order, snapshot_args)
        models = [Model.from_save(path, model_builder) for _, path, _ in members]
        weights = [1.0 if weighting == "uniform" else _weight(value, higher_metric_better) for *_, value in members]
        told = [{**dict(result), "path": str(path)} for result, path, _ in members]
        return cls.from_models(models, weights, told, model_builder)

    # ---------------------------------------------------------------------------------------------------------- predict
    def predict(
        self,
        inputs: Any,
        as_np: bool = True,
        pred_name: str = "pred",
        n_models: int | None = None,
        cbs: Iterable[LoopCallback] | LoopCallback | None = None,
        bs: int | None = None,
        *,
        mask: Any = None,
    ) -> Any:
        """Predict some data; see `Model.predict`.

        Args:
            inputs: Array, tensor, table, or (flat, matrix); or a source of folds, into which predictions are written.
            as_np: Whether arrays are returned; else tensors, for multiclass models of logarithms of probabilities.
            pred_name: Name under which folds get their predictions.
            n_models: Use the first so many models; all where None.
            cbs: Callbacks.
            bs: Samples to a batch.
            mask: Which objects exist.

        Returns:
            Predictions, (sample, n_out); None for folds.
        """
        if not self.models:
            raise InputError("the ensemble has no models: make it by `from_models`, `from_results` or `from_save`")
        if is_fold_source(inputs):
            for idx in range(len(inputs)):
                preds = mean_over_variants(
                    [
                        self._predict(data["inputs"], n_models, cbs, bs, data.get("mask"))
                        for data in variants(inputs, idx)
                    ]
                )
                preds = preds[:, 0] if preds.ndim > 1 and preds.shape[1] == 1 else preds
                inputs.save_fold_pred(preds, idx, pred_name=pred_name)
            return None
        preds = self._predict(inputs, n_models, cbs, bs, mask)
        if as_np:
            return preds
        tensor = torch.from_numpy(preds)
        return tensor.log() if self.models[0].classes else tensor

    def _predict(
        self,
        inputs: Any,
        n_models: int | None,
        cbs: Iterable[LoopCallback] | LoopCallback | None,
        bs: int | None,
        mask: Any,
    ) -> np.ndarray:
        models = self.models[:n_models]
        weights = _normalised(self.weights[:n_models], len(models))
        total: np.ndarray | None = None
        for model, weight in zip(models, weights, strict=True):
            part = weight * model.predict(inputs, cbs=cbs, bs=bs, mask=mask)
            total = part if total is None else total + part
        assert total is not None
        return total

    # ------------------------------------------------------------------------------------------------------------ files
    def save(self, name: str | Path, feats: Sequence[str] | None = None, overwrite: bool = False) -> None:
        """Save the ensemble to a folder: weights and description as JSON, each model as safetensors; never pickle.

        The description is written last and names the files in their order, so that neither a kill nor the number of
        models can mix them up.

        Args:
            name: The folder.
            feats: Names of the input features, kept for the reader.
            overwrite: Whether an ensemble that is there is replaced.

        Raises:
            InputError: If there is something at the place already, or the description cannot be written.
            StorageError: If it cannot be written.
        """
        if self.model_builder is None or not self.models:
            raise InputError("an ensemble without models, or whose models have no builder, cannot be saved")
        folder = Path(name)
        if folder.exists() and not (overwrite and (folder / DESCRIPTION).is_file()):
            hint = "pass `overwrite=True`" if (folder / DESCRIPTION).is_file() else "choose another name"
            raise InputError(f"`name` must be a new folder; {str(folder)!r} exists: {hint}")
        description = _builder_files.to_json(self.model_builder)
        storage.make_folder(folder)
        old = sorted(folder.glob("*.safetensors"))
        generation = 1 + max((int(m[1]) for p in old if (m := re.match(r"(\d+)_", p.name))), default=0)
        files = [f"{generation:04d}_{k:04d}.safetensors" for k in range(len(self.models))]
        for file, model in zip(files, self.models, strict=True):
            model.save(folder / file)
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "feats": None if feats is None else list(feats),
            "members": [
                {"file": file, "weight": weight, "result": _plain(result)}
                for file, weight, result in zip(files, self.weights, self._told(), strict=True)
            ],
            "model_builder": description,
        }
        storage.write_json(folder / DESCRIPTION, content)
        for path in old:
            path.unlink(missing_ok=True)

    def _told(self) -> list[dict[str, Any]]:
        return self.results if len(self.results) == len(self.models) else [{} for _ in self.models]

    @classmethod
    def from_save(cls, name: str | Path, classes: Mapping[str, Any] | None = None) -> Self:
        """An ensemble from a folder that `save` wrote; nothing in it is executed.

        Args:
            name: The folder.
            classes: Classes of your own that the description names, by name.

        Raises:
            StorageError: If it cannot be read; `FileDamagedError` if it is broken.
            CheckpointError: If it is no ensemble, or models do not fit their description.
        """
        folder = Path(name)
        path = folder / DESCRIPTION
        try:
            content = json.loads(packing.read_bytes(path))
        except ValueError as error:
            raise FileDamagedError(f"`{path}` is damaged: its text is no JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get("members"):
            raise CheckpointError(f"`{path}` must hold the description of an ensemble")
        packing.check_version(path, content.get("format_version"), FORMAT_VERSION, "?")
        builder = ModelBuilder(**_builder_files.from_json(content["model_builder"], classes or {}, str(path)))
        models, weights, results = [], [], []
        for member in content["members"]:
            if Path(member["file"]).name != member["file"]:
                raise CheckpointError(f"`{path}` must name files beside it; got {member['file']!r}")
            models.append(Model.from_save(folder / member["file"], builder))
            weights.append(float(member["weight"]))
            results.append(member.get("result") or {})
        return cls.from_models(models, weights, results, builder)

    def export_to_onnx(self, name: str | Path, **settings: Any) -> list[Path]:
        """Export every model; see `Model.export_to_onnx`. Predictions are to be averaged with `weights`.

        Args:
            name: Beginning of the files' names, to which ``_0.onnx`` and so on are appended.
            **settings: What `Model.export_to_onnx` takes.

        Returns:
            The files.
        """
        path = Path(name)
        return [
            model.export_to_onnx(path.with_name(f"{path.name}_{k}.onnx"), **settings)
            for k, model in enumerate(self.models)
        ]


def _normalised(weights: Sequence[float] | np.ndarray | Tensor, n: int) -> list[float]:
    found = [float(weight) for weight in weights]
    if len(found) != n or not all(math.isfinite(w) and w >= 0 for w in found) or not sum(found) > 0:
        raise InputError(f"`weights` must hold one finite number of 0 or more for each of the {n} models; got {found}")
    total = math.fsum(found)
    return [weight / total for weight in found]


def _rank(value: float) -> float:
    """Value to sort by, NaN last."""
    return math.inf if math.isnan(value) else value


def _weight(value: float, higher_is_better: bool) -> float:
    """Weight of a model with a value of the metric."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"`weighting` = 'reciprocal' needs positive values of the metric; got {value}: use 'uniform'")
    return value if higher_is_better else 1.0 / value


def _file_of(result: Mapping[str, Any]) -> Path:
    """File of the final model of a result."""
    folder = Path(result["path"])
    if folder.is_file():
        return folder
    number = result.get("number", re.sub(r".*_", "", folder.name))
    return folder / f"train_{number}.h5"


def _with_cycles(
    members: Sequence[tuple[Mapping[str, Any], Path, float]], order: Sequence[int], snapshot_args: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Path, float]]:
    """Members, and the models at the ends of their last cycles."""
    unknown = set(snapshot_args) - {"cycle_losses", "n_cycles", "load_cycles_only"}
    if unknown or "cycle_losses" not in snapshot_args:
        raise InputError(
            "`snapshot_args` must hold 'cycle_losses' and may hold 'n_cycles' and 'load_cycles_only'; "
            f"got {sorted(snapshot_args)}"
        )
    found = [] if snapshot_args.get("load_cycles_only") else list(members)
    for (result, *_), number in zip(members, order, strict=True):
        losses: Mapping[int, float] = snapshot_args["cycle_losses"][number]
        cycles = sorted(losses)
        n_cycles = snapshot_args.get("n_cycles")
        for cycle in cycles if n_cycles is None else cycles[len(cycles) - min(n_cycles, len(cycles)) :]:
            paths = sorted(Path(result["path"]).glob(f"*_{cycle}.h5"))
            paths = [path for path in paths if not path.name.startswith(("train_", "epoch_"))]
            if len(paths) != 1:
                raise InputError(
                    f"cycle {cycle} of {result['path']} must have one file; got {[path.name for path in paths]}. "
                    "Cycles are saved by one callback with `cycle_save`"
                )
            found.append(({"cycle": cycle}, paths[0], float(losses[cycle])))
    return found


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as JSON takes it."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in result.items()
    }
