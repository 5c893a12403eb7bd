"""From a checked configuration of a training to its network, loss and callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.runs.build import resolve_device
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.messages import at
from diffdet.runs.registry import accepted, construct, resolve, searching
from diffdet.runs.train_data import Prepared, TrainData, fit_scales, load_data

if TYPE_CHECKING:
    import torch

    from diffdet.nn.models.model_builder import ModelBuilder

__all__ = ["BuiltTraining", "build_callbacks", "build_training"]


@dataclass(frozen=True)
class BuiltTraining:
    """Everything that a training needs.

    Attributes:
        builder: Describes the network.
        data: All folds, and their division.
        train: Folds as training takes them: weights balanced if asked for.
        plain: Folds as figures take them: weights of the data.
        device: Where to train.
    """

    builder: ModelBuilder
    data: TrainData
    train: Prepared
    plain: Prepared
    device: torch.device


def build_training(config: TrainConfig) -> BuiltTraining:
    """Read the data and build everything that can be wrong.

    Raises:
        InputError: If something cannot be built; the message begins with the path of the field.
        StorageError: If a file cannot be read.
    """
    device = resolve_device(config.device)
    data = load_data(config)
    with searching(config.search_path):
        builder, row_wise, objects_only = _builder(config, data)
        build_callbacks(config)
    settings: dict[str, Any] = {"row_wise": row_wise, "objects_only": objects_only}
    plain = Prepared(data, **settings)
    train = Prepared(data, **settings, classes=_class_weights(config, data), weight_scale=1.0)
    train.weight_scale = _weight_scale(train)
    _check_sizes(config, data)
    built = BuiltTraining(builder, data, train, plain, device)
    _try(config, built)
    return built


def _builder(config: TrainConfig, data: TrainData) -> tuple[ModelBuilder, bool | None, bool]:
    """The description of the network, the layout of its head of objects, and whether it takes nothing else."""
    from diffdet.nn.models.helpers import CatEmbedder
    from diffdet.nn.models.model_builder import ModelBuilder
    from diffdet.nn.models.standardised import StandardisedHead

    network = config.network
    head, row_wise, objects_only = _head(config, data)
    cont_feats = data.matrix_names if objects_only else data.cont_feats
    if row_wise is not None and not objects_only:
        cont_feats = [*cont_feats, *data.matrix_names]
    if config.data.standardise:
        scales = fit_scales(data)
        features = [] if row_wise is None else list(data.objects["feats_per_vec"])
        known = {*([] if objects_only else data.cont_feats), *features}
        scales = {name: scale for name, scale in scales.items() if name in known}
        head = partial(StandardisedHead, scales=scales, head=head)
    cats = [] if objects_only else data.folds.get_use_cat_feats()
    embedder = CatEmbedder.from_fy(data.folds) if cats else None
    body = _part("network body", network.body, "network.body")
    tail = _tail(config, data)
    loss: Any = "auto" if config.loss is None else _part("network loss", config.loss, "loss")
    optimiser = {"opt": config.optimiser.class_, "lr": config.optimiser.lr, **config.optimiser.args}
    objective, n_out = network.objective, network.outputs
    with at("network"):
        builder = ModelBuilder(
            objective, n_out, cont_feats, None, optimiser, embedder, None, None, loss, head, body, tail
        )
    return builder, row_wise, objects_only


def _part(role: str, spec: Any, where: str) -> Any:
    """A class with its arguments bound, to be called later."""
    return construct(resolve(role, spec.class_, where), where, {}, spec.args, late=("anything",))


def _head(config: TrainConfig, data: TrainData) -> tuple[Any, bool | None, bool]:
    """The head with names of objects filled in, its layout (None without objects), and whether it is all objects."""
    from diffdet.nn.models.blocks.head import AbsMatrixHead, MultiHead

    spec = config.network.head
    kind = resolve("network head", spec.class_, "network.head")
    head = _part("network head", spec, "network.head")
    names = {key: list(data.objects[key]) for key in ("vecs", "feats_per_vec")} if data.objects else {}
    if issubclass(kind, MultiHead):
        inner = head.keywords.get("matrix_head") if isinstance(head, partial) else None
        if inner is None:
            raise InputError("network.head.args.matrix_head: expected a class of heads of objects, given nothing")
        inner = _with_names(inner, names, "network.head.args.matrix_head")
        head = partial(head.func, *head.args, **{**head.keywords, "matrix_head": inner})
        return head, _row_wise(inner, names), False
    if issubclass(kind, AbsMatrixHead):
        head = _with_names(head, names, "network.head")
        return head, _row_wise(head, names), True
    return head, None, False


def _with_names(head: Any, names: dict[str, list[str]], where: str) -> Any:
    """A head of objects that knows what they are called."""
    if not names:
        raise InputError(f"{where}: expected a head for flat features, because the data have no objects")
    given = getattr(head, "keywords", {})
    return partial(head, **{key: value for key, value in names.items() if key not in given})


def _row_wise(head: Any, names: dict[str, list[str]]) -> bool:
    """Layout of a head of objects, which a trial tells."""
    cells = [f"{vec}_{feat}" for vec in names["vecs"] for feat in names["feats_per_vec"]]
    with at("network.head"):
        try:
            return bool(head(cont_feats=cells).row_wise)
        except TypeError as error:
            raise InputError(f"network.head: {error}") from error


def _tail(config: TrainConfig, data: TrainData) -> Any:
    """The tail; for regression with mean and width of the targets."""
    spec = config.network.tail
    tail = _part("network tail", spec, "network.tail")
    kind = resolve("network tail", spec.class_, "network.tail")
    names, _ = accepted(kind)
    scaled = {"y_range", "y_mean", "y_std"}
    if config.network.objective != "regression" or not scaled <= set(names) or scaled & set(spec.args):
        return tail
    values = np.concatenate([np.asarray(data.folds[idx]["targets"], dtype=np.float64) for idx in data.learn_idxs])
    values = values.reshape(len(values), -1)
    widths = values.std(0)
    return partial(tail, y_mean=values.mean(0).tolist(), y_std=np.where(widths > 0, widths, 1.0).tolist())


def build_callbacks(config: TrainConfig) -> tuple[list[Any], list[Any]]:
    """Callbacks and metrics of one model, made anew.

    Raises:
        InputError: If one refuses its arguments.
    """

    def made(role: str, specs: list[Any], section: str) -> list[Any]:
        places = [(f"{section}[{k}]", spec) for k, spec in enumerate(specs)]
        return [construct(resolve(role, spec.class_, where), where, {}, spec.args) for where, spec in places]

    return made("network callback", config.callbacks, "callbacks"), made("metric", config.metrics, "metrics")


def _class_weights(config: TrainConfig, data: TrainData) -> dict[int, float]:
    """Factors that make all classes count alike; empty where that is not asked for."""
    if not config.data.balance:
        return {}
    if config.network.objective == "regression" or (
        config.network.objective == "classification" and config.network.outputs > 1
    ):
        raise InputError("data.balance: expected false, because the events are in no classes, given true")
    totals: dict[int, float] = {}
    for idx in data.learn_idxs:
        fold = data.folds[idx]
        classes = np.asarray(fold["targets"]).reshape(-1).astype(np.int64)
        weights = fold["weights"]
        weights = np.ones(len(classes)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
        for k in np.unique(classes):
            totals[int(k)] = totals.get(int(k), 0.0) + float(weights[classes == k].sum())
    if min(totals.values()) <= 0:
        raise InputError(f"data.balance: expected classes of positive weight, given {totals}")
    mean = sum(totals.values()) / len(totals)
    return {k: mean / total for k, total in totals.items()}


def _weight_scale(train: Prepared) -> float:
    """Factor that gives weights a mean of 1 over the folds to learn from."""
    total, n = 0.0, 0
    for idx in train.data.learn_idxs:
        weights = train.get_fold(idx).get("weights")
        if weights is None:
            return 1.0
        total, n = total + float(np.sum(weights, dtype=np.float64)), n + len(weights)
    if total <= 0:
        raise InputError(f"data.weight: expected weights with a positive sum, given {total:g}")
    return n / total


def _check_sizes(config: TrainConfig, data: TrainData) -> None:
    """Refuse batches that no fold can fill."""
    smallest = min(data.folds.fold_size(idx) for idx in data.learn_idxs)
    if config.schedule.batch_size > smallest:
        raise InputError(
            f"schedule.batch_size: expected at most {smallest}, the events of the smallest fold, given "
            f"{config.schedule.batch_size}"
        )


def _try(config: TrainConfig, built: BuiltTraining) -> None:
    """Build the network once and pass two events through it, so that what is wrong with it is told before the run."""
    from diffdet.nn.models.model import Model
    from diffdet.nn.training.batches import load_fold

    with at("network"):
        try:
            model = Model(built.builder, seed=config.seed)
            rows = load_fold(built.train, built.data.learn_idxs[0], dtype=model.dtype, classes=model.n_classes)
            model.loss_of(rows.map(lambda t: t[:2]).batches(2))
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"network: {type(error).__name__}: {error}") from error
