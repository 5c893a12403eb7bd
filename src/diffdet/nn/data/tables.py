"""Tables to folds: flat columns, and lists of objects that become padded matrices with masks.

A list of objects is what ntuples hold: ``Jet_pt``, ``Jet_eta``, ... with as many entries as an event has jets.
`Objects` says which columns belong together and how many objects to keep. Files are read piece by piece.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.data._folds import Array
from diffdet.nn.data._sources import Column, Lists, Source, open_source
from diffdet.nn.data.fold_file import FoldFileWriter, FoldLayout
from diffdet.nn.data.fold_yielder import ArrayFoldYielder, fold_ids

__all__ = ["Objects", "Table", "pad_lists", "read_table", "table2foldfile"]

PIECE_ROWS = 65536


@dataclass(frozen=True)
class Objects:
    """Objects of one kind in the lists of a table.

    Attributes:
        name: What they are called: they become ``{name}0``, ``{name}1``, ...
        n_max: How many to keep of an event.
        columns: For each feature the column that holds its lists: ``{"pt": "Jet_pt", "eta": "Jet_eta"}``.
        sort_by: Feature to sort by, largest first; the order of the file where None.
        constants: Features that are the same for all, for example ``{"is_lepton": 1}``.
    """

    name: str
    n_max: int
    columns: Mapping[str, str]
    sort_by: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n_max < 1:
            raise InputError(f"`n_max` must be at least 1; got {self.n_max}")
        if not self.columns:
            raise InputError(f"`columns` of {self.name!r} must name at least one feature; got none")
        if self.sort_by is not None and self.sort_by not in self.columns:
            near = did_you_mean(self.sort_by, self.columns)
            raise InputError(f"`sort_by` must be one of {list(self.columns)}; got {self.sort_by!r}{near}")

    @property
    def feats(self) -> list[str]:
        """Names of the features."""
        return [*self.columns, *self.constants]

    @property
    def vecs(self) -> list[str]:
        """Names of the objects."""
        return [f"{self.name}{k}" for k in range(self.n_max)]


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        columns: Flat columns by name, (row,).
        matrix: Objects, (row, object, feature), 0 where there is none; None without objects.
        mask: Which objects exist, (row, object).
        vecs: Names of the objects.
        feats_per_vec: Names of their features.
    """

    columns: dict[str, Array]
    matrix: Array | None = None
    mask: Array | None = None
    vecs: Sequence[str] = ()
    feats_per_vec: Sequence[str] = ()

    def fold_yielder(
        self,
        cont_feats: Sequence[str] = (),
        cat_feats: Sequence[str] = (),
        targ_feats: Sequence[str] | str = (),
        wgt_feat: str | None = None,
        *,
        n_folds: int = 10,
        seed: int = 0,
        misc_feats: Sequence[str] = (),
        strat_key: str | None = None,
        **kwargs: Any,
    ) -> ArrayFoldYielder:
        """The table as folds in memory.

        Args:
            cont_feats: Continuous features.
            cat_feats: Categorical features, integer codes.
            targ_feats: Target or targets.
            wgt_feat: Weight.
            n_folds: Number of folds.
            seed: Seed of the dealing.
            misc_feats: Further columns to keep.
            strat_key: Column whose values every fold holds evenly; the target where None and it has few values.
            **kwargs: Further arguments of `ArrayFoldYielder`.

        Raises:
            InputError: If a column is not there, or does not suit its place.
        """
        targets = [targ_feats] if isinstance(targ_feats, str) else list(targ_feats)
        for name, names in (
            ("cont_feats", cont_feats),
            ("cat_feats", cat_feats),
            ("targ_feats", targets),
            ("wgt_feat", [wgt_feat] if wgt_feat else []),
            ("misc_feats", misc_feats),
            ("strat_key", [strat_key] if strat_key else []),
        ):
            for given in names:
                if given not in self.columns:
                    near = did_you_mean(given, self.columns)
                    raise InputError(f"`{name}` must be columns of the table; {given!r} is none{near}")
        names = [*cont_feats, *cat_feats]
        flat = np.stack([self.columns[name].astype(np.float32) for name in names], axis=1) if names else None
        if flat is None and self.matrix is None:
            raise InputError("`cont_feats` must name features, because the table has no objects; got none")
        inputs = flat if self.matrix is None else self.matrix if flat is None else (flat, self.matrix)
        y = None
        if targets:
            y = np.stack([self.columns[name] for name in targets], axis=1)
            y = y[:, 0] if len(targets) == 1 else y
        if strat_key is not None:
            kwargs["strat"] = self.columns[strat_key]
        if self.matrix is not None:
            kwargs["matrix_feats"] = self._description()
        return ArrayFoldYielder(
            inputs,
            y,
            None if wgt_feat is None else self.columns[wgt_feat],
            self.mask,
            n_folds=n_folds,
            cont_feats=list(cont_feats),
            cat_feats=list(cat_feats),
            seed=seed,
            extra={name: self.columns[name] for name in misc_feats},
            targ_feats=targets,
            wgt_feat=wgt_feat,
            **kwargs,
        )

    def _description(self) -> dict[str, Any]:
        return {
            "present_feats": [f"{vec}_{feat}" for vec in self.vecs for feat in self.feats_per_vec],
            "vecs": list(self.vecs),
            "feats_per_vec": list(self.feats_per_vec),
            "missing": [],
            "row_wise": True,
            "shape": [len(self.vecs), len(self.feats_per_vec)],
            "is_sparse": False,
        }


def pad_lists(
    columns: Mapping[str, Lists], n_max: int, sort_by: str | None = None, dtype: Any = np.float32
) -> tuple[Array, Array]:
    """Lists of objects as a padded matrix.

    Args:
        columns: Lists by feature; all of one length in each row.
        n_max: How many to keep; the first ones of longer lists.
        sort_by: Feature to sort by, largest first.
        dtype: Type of the matrix.

    Returns:
        Matrix (row, n_max, feature), 0 where there is none, and mask (row, n_max).

    Raises:
        ShapeError: If lists of a row differ in length.
    """
    names = list(columns)
    counts = columns[names[0]].counts.astype(np.int64)
    for name in names[1:]:
        other = columns[name].counts
        if len(other) != len(counts) or (other != counts).any():
            row = int(np.flatnonzero(other != counts)[0]) if len(other) == len(counts) else 0
            raise ShapeError(
                f"lists of one kind of objects must be equally long; in row {row}, `{names[0]}` has {counts[row]} "
                f"entries and `{name}` has {other[row]}"
            )
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.arange(len(rows))
    if sort_by is not None:
        order = np.lexsort((-columns[sort_by].values.astype(np.float64), rows))
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = places < n_max
    matrix = np.zeros((len(counts), n_max, len(names)), dtype=dtype)
    for k, name in enumerate(names):
        matrix[rows[kept], places[kept], k] = columns[name].values[order][kept]
    return matrix, np.arange(n_max) < counts[:, None]


def _renamed(columns: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}


def _pieces(
    source: Source, columns: Mapping[str, str], objects: Sequence[Objects], n_rows: int
) -> Iterator[tuple[dict[str, Array], Array | None, Array | None]]:
    """Flat columns, matrix and mask, piece by piece."""
    feats = objects[0].feats if objects else []
    for kind in objects[1:]:
        if sorted(kind.feats) != sorted(feats):
            raise InputError(
                f"`objects` must all have the features {feats}; those of {kind.name!r} are {kind.feats}. "
                "Set what one kind lacks by `constants`"
            )
    wanted = [*columns.values(), *(name for kind in objects for name in kind.columns.values())]
    for piece in source.pieces(wanted, n_rows):
        flat = {name: _flat(name, piece[theirs]) for name, theirs in columns.items()}
        parts = [_matrix_of(kind, piece, feats) for kind in objects]
        if not parts:
            yield flat, None, None
            continue
        matrix, mask = (np.concatenate(group, axis=1) for group in zip(*parts, strict=True))
        yield flat, matrix, mask


def _flat(name: str, column: Column) -> Array:
    if isinstance(column, Lists):
        raise InputError(f"`columns`: {name!r} must have one number in each row; it has lists: read them as `objects`")
    return column


def _matrix_of(kind: Objects, piece: Mapping[str, Column], feats: Sequence[str]) -> tuple[Array, Array]:
    lists: dict[str, Lists] = {}
    for feat, theirs in kind.columns.items():
        column = piece[theirs]
        if not isinstance(column, Lists):
            column = Lists(np.ones(len(column), dtype=np.int64), column)  # one object in every row
        lists[feat] = column
    matrix, mask = pad_lists(lists, kind.n_max, kind.sort_by)
    constant = np.zeros((*mask.shape, len(kind.constants)), dtype=matrix.dtype)
    constant += np.array(list(kind.constants.values()), dtype=matrix.dtype)
    constant *= mask[..., None]
    order = [kind.feats.index(feat) for feat in feats]
    return np.concatenate([matrix, constant], axis=2)[:, :, order], mask


def read_table(
    source: Any,
    columns: Mapping[str, str] | Sequence[str] = (),
    objects: Sequence[Objects] = (),
    *,
    tree: str | None = None,
    max_rows: int | None = None,
) -> Table:
    """Read a table into memory.

    Args:
        source: Path of a ``.root``, ``.parquet``, ``.csv`` or ``.npz`` file; a dict of arrays; a DataFrame of pandas.
        columns: Flat columns to read; a mapping of names to the names in the file renames them.
        objects: Kinds of objects to read from lists; one after the other along the matrix.
        tree: Name of the tree or ntuple of a ROOT file; the only one where None.
        max_rows: Read the first so many rows; all where None.

    Returns:
        The table.

    Raises:
        InputError: If a column is not there, or not of numbers.
        StorageError: If there is no such file.
        FileDamagedError: If it cannot be read.

    Example:
        >>> data = {"met": np.array([1.0, 2.0]), "Jet_pt": np.array([[5.0], [3.0, 9.0]], dtype=object)}
        >>> table = read_table(data, ["met"], [Objects("j", 2, {"pt": "Jet_pt"})])
        >>> table.matrix[:, :, 0].tolist(), table.mask.tolist()
        ([[5.0, 0.0], [3.0, 9.0]], [[True, False], [True, True]])
    """
    names = _renamed(columns)
    if not names and not objects:
        raise InputError("`columns` must name what to read; got nothing")
    opened = open_source(source, tree)
    try:
        found, total = [], 0
        for piece in _pieces(opened, names, objects, min(PIECE_ROWS, max_rows or PIECE_ROWS)):
            found.append(piece)
            total += len(next(iter(piece[0].values()))) if names else len(piece[2] if piece[2] is not None else ())
            if max_rows is not None and total >= max_rows:
                break
    finally:
        opened.close()
    if not found:
        raise InputError(f"`source` must have rows; {opened.path} has none")
    flat = {name: np.concatenate([piece[0][name] for piece in found])[:max_rows] for name in names}
    vecs = [vec for kind in objects for vec in kind.vecs]
    twice = sorted({vec for vec in vecs if vecs.count(vec) > 1})
    if twice:
        raise InputError(f"`objects` must have different names; {twice} are there more than once")
    if not objects:
        return Table(flat)
    matrix, mask = (np.concatenate([piece[k] for piece in found if piece[k] is not None])[:max_rows] for k in (1, 2))
    return Table(flat, matrix, mask, vecs, objects[0].feats)


def table2foldfile(
    source: Any,
    savename: str | os.PathLike[str],
    n_folds: int,
    cont_feats: Mapping[str, str] | Sequence[str],
    cat_feats: Mapping[str, str] | Sequence[str] = (),
    targ_feats: Mapping[str, str] | Sequence[str] | str = (),
    targ_type: str = "float",
    wgt_feat: str | None = None,
    *,
    objects: Sequence[Objects] = (),
    misc_feats: Sequence[str] = (),
    cat_maps: Mapping[str, Mapping[int, Any]] | None = None,
    strat_key: str | None = None,
    tree: str | None = None,
    seed: int = 0,
    compression: str | None = None,
    n_rows: int = PIECE_ROWS,
) -> Path:
    """Turn a table into a fold file, piece by piece: memory is that of a piece, whatever the size of the table.

    Args:
        source: See `read_table`.
        savename: Where to; ``.hdf5`` is added where there is no suffix. What is there is replaced when all is written.
        n_folds: Number of folds.
        cont_feats: Continuous features; a mapping renames columns.
        cat_feats: Categorical features, integer codes; a mapping renames columns.
        targ_feats: Targets; a mapping renames columns.
        targ_type: ``"int"`` or ``"float"``.
        wgt_feat: Weight.
        objects: See `read_table`.
        misc_feats: Further columns to keep.
        cat_maps: For each categorical feature what its codes mean.
        strat_key: Column whose values every fold holds evenly.
        tree: See `read_table`.
        seed: Seed of the dealing.
        compression: ``"gzip"``, ``"lzf"`` or None.
        n_rows: About how many rows to a piece.

    Returns:
        Path of the file.

    Raises:
        InputError: If a column is not there, or does not suit its place.
        StorageError: If a file cannot be read or written.
    """
    targets = {targ_feats: targ_feats} if isinstance(targ_feats, str) else _renamed(targ_feats)
    conts, cats = _renamed(cont_feats), _renamed(cat_feats)
    others = [*misc_feats, *([wgt_feat] if wgt_feat else [])]
    columns = {**conts, **cats, **targets, **{name: name for name in others}}
    layout = FoldLayout(
        *(list(conts), list(cats), list(targets), targ_type, wgt_feat, list(misc_feats), cat_maps),
        matrix_vecs=[vec for kind in objects for vec in kind.vecs] if objects else None,
        matrix_feats_per_vec=objects[0].feats if objects else None,
        tensor_name="objects" if objects else None,
    )
    opened = open_source(source, tree)
    try:
        key = strat_key or next(iter(columns.values()), None) or next(iter(objects[0].columns.values()))
        parts = [piece[key] for piece in opened.pieces([key], n_rows)]
        total = sum(len(part.counts if isinstance(part, Lists) else part) for part in parts)
        strat = np.concatenate([_flat(key, part) for part in parts]) if strat_key and parts else None
        ids = fold_ids(total, n_folds, strat=strat, seed=seed)
        with FoldFileWriter(savename, n_folds, compression) as writer:
            start = 0
            for flat, matrix, mask in _pieces(opened, columns, objects, n_rows):
                arrays = layout.arrays(flat, matrix, mask)
                stop = start + len(next(iter(arrays.values())))
                writer.write(arrays, ids[start:stop])
                start = stop
            writer.set_meta_data(layout.meta_data())
    finally:
        opened.close()
    return writer.path
