"""Tables as data of a training: which columns are inputs, objects, targets and weight."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.runs.config.train import ObjectsConfig, TrainConfig
from diffdet.runs.messages import at

if TYPE_CHECKING:
    from diffdet.nn.data.fold_yielder import ArrayFoldYielder

__all__ = ["read_table"]


def read_table(config: TrainConfig) -> ArrayFoldYielder:
    """The folds of a configuration whose data are a table.

    Objects are columns ``NAME_FEATURE``, or the first entries of the columns of lists that `objects.lists` names; where
    there is no such column, names that end in a number take that entry of the lists ``BASE_FEATURE``: ``Jet0`` is the
    first entry of ``Jet_pt``, ``Jet_eta``, ...

    Raises:
        InputError: If a column is not there, or does not suit its place; the message begins with the path of the field.
        StorageError: If the file cannot be read.
    """
    from diffdet.nn.data import tables

    data = config.data
    assert data.file is not None
    flat = [*data.inputs, *data.categories, *data.targets, *([data.weight] if data.weight else [])]
    with at("data"):
        table = tables.Table({})
        if flat:
            table = tables.read_table(data.file, list(dict.fromkeys(flat)), tree=data.tree)
        if data.objects is not None:
            matrix, mask = _objects(data.file, data.tree, data.objects)
            table = tables.Table(table.columns, matrix, mask, data.objects.names, data.objects.features)
        _check_finite(table.columns, "inputs", data.inputs, ": fill them, say with the mean of the others")
        _check_finite(table.columns, "targets", data.targets)
        return table.fold_yielder(
            data.inputs,
            data.categories,
            data.targets,
            data.weight,
            n_folds=data.folds,
            seed=config.seed,
        )


def _check_finite(columns: dict[str, Any], field: str, names: list[str], advice: str = "") -> None:
    """Refuse what is NaN or infinite: as 0 in its own unit, it would spoil the scales of a feature without a word."""
    for name in names:
        bad = int((~np.isfinite(columns[name].astype(np.float64))).sum())
        if bad:
            raise InputError(f"{field}: expected finite values, given {bad} of {name!r} that are not{advice}")


def _objects(file: str, tree: str | None, objects: ObjectsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and mask of the objects."""
    from diffdet.nn.data._sources import open_source
    from diffdet.nn.data.tables import read_table

    if objects.lists is not None:
        return _lists(file, tree, objects, objects.lists)
    source = open_source(file, tree)
    known = set(source.names())
    source.close()
    first = objects.features[0]
    if all(f"{name}_{first}" in known for name in objects.names):
        cells = [f"{name}_{feature}" for name in objects.names for feature in objects.features]
        wanted = [*cells, *([objects.count] if objects.count else [])]
        found = read_table(file, wanted, tree=tree).columns
        matrix = np.stack([found[cell].astype(np.float32) for cell in cells], axis=1)
        matrix = matrix.reshape(-1, len(objects.names), len(objects.features))
        if objects.count is not None:
            mask = np.arange(len(objects.names)) < found[objects.count].astype(np.int64)[:, None]
        else:
            mask = ~np.isnan(matrix[:, :, 0])
        return np.where(mask[..., None], matrix, np.float32(0)), mask
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in objects.names]
    bases = {match[1] if match else "" for match in parts}
    base = next(iter(bases))
    places = [int(match[2]) for match in parts if match]
    if len(bases) != 1 or f"{base}_{first}" not in known or places != list(range(len(places))):
        missing = next(f"{name}_{first}" for name in objects.names if f"{name}_{first}" not in known)
        raise InputError(
            f"objects.names: expected objects of the table, given {objects.names}: it has neither a column {missing!r} "
            f"nor lists such as {re.sub(r'[0-9]+$', '', objects.names[0])}_{first!s}"
        )
    return _lists(file, tree, objects, base)


def _lists(file: str, tree: str | None, objects: ObjectsConfig, base: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and mask of the first entries of the lists ``BASE_FEATURE``."""
    from diffdet.nn.data.tables import Objects, read_table

    columns = {feature: f"{base}_{feature}" for feature in objects.features}
    lists = read_table(file, (), [Objects(base, len(objects.names), columns)], tree=tree)
    assert lists.matrix is not None
    assert lists.mask is not None
    return lists.matrix, lists.mask
