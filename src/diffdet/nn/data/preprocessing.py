"""Scaling of features and targets, coding of categories; everything that is learnt can be stored as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import FileDamagedError, InputError, ShapeError, StorageError
from diffdet.core.storage import write_json
from diffdet.nn.data._folds import Array

__all__ = ["Scaler", "fit_input_pipe", "fit_output_pipe", "get_pre_proc_pipes", "proc_cats"]


class Scaler:
    """Shifts, scales and, if asked, rotates features: (x - mean) / scale, then principal components.

    Works on the last axis of arrays of any shape, so on matrices of objects, too. NaN, what does not exist, is left out
    when fitting and stays NaN. Features that are constant are shifted only.

    Args:
        with_mean: Whether to shift to mean 0.
        with_std: Whether to scale to standard deviation 1.
        pca: Whether to rotate to principal components, largest variance first.
        whiten: Whether to scale those to variance 1.
        n_components: Keep the first so many; all where None.

    Attributes:
        mean: Means, (feature,); None before `fit`.
        scale: Standard deviations, (feature,).
        components: Rotation, (component, feature); None without.
    """

    def __init__(
        self,
        with_mean: bool = True,
        with_std: bool = True,
        pca: bool = False,
        whiten: bool = False,
        n_components: int | None = None,
    ) -> None:
        if (whiten or n_components is not None) and not pca:
            raise InputError("`whiten` and `n_components` must come with `pca=True`; got `pca=False`")
        self.with_mean, self.with_std, self.pca, self.whiten = with_mean, with_std, pca, whiten
        self.n_components = n_components
        self.mean: Array | None = None
        self.scale: Array | None = None
        self.components: Array | None = None
        self.component_scale: Array | None = None

    def fit(self, x: Any, weights: Any = None, mask: Any = None) -> Scaler:
        """Learn from data.

        Args:
            x: Features, (..., feature).
            weights: Weight of each sample, (sample,).
            mask: What exists, all axes of x but the last; the rest is left out.

        Returns:
            Itself.

        Raises:
            InputError: If a feature is infinite, or has no value at all.
        """
        values = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x, dtype=np.float64)
        if values.ndim < 2:
            raise ShapeError(f"`x` must have shape (sample, ..., feature); got {values.shape}")
        if np.isinf(values).any():
            raise InputError(f"`x` must be finite or NaN; {int(np.isinf(values).sum())} values are infinite")
        w = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
        w = np.broadcast_to(w.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        there = ~np.isnan(values)
        if mask is not None:
            there &= np.asarray(mask, dtype=bool)[..., None]
        flat, there, w = (part.reshape(-1, values.shape[-1]) for part in (values, there, w))
        w, flat = w * there, np.where(there, flat, 0)
        total = w.sum(axis=0)
        if (total <= 0).any():
            raise InputError(f"`x` must have values of every feature; feature {int(np.argmin(total))} has none")
        mean = (w * flat).sum(axis=0) / total
        std = np.sqrt((w * np.square(flat - mean)).sum(axis=0) / total)
        constant = std <= 1e-12 * np.maximum(1, np.abs(mean))
        self.mean = mean if self.with_mean else np.zeros_like(mean)
        self.scale = np.where(constant, 1.0, std) if self.with_std else np.ones_like(std)
        self.components = self.component_scale = None
        if self.pca:
            whole = there.all(axis=1)
            self._fit_components((flat[whole] - self.mean) / self.scale, w[whole, 0])
        return self

    def _fit_components(self, z: Array, w: Array) -> None:
        if not len(z):
            raise InputError("`x` must have samples without NaN to find principal components; got none")
        centred = z - (w[:, None] * z).sum(axis=0) / w.sum()
        variances, directions = np.linalg.eigh((w[:, None] * centred).T @ centred / w.sum())
        order = np.argsort(variances)[::-1][: self.n_components]
        directions = directions[:, order].T
        largest = np.abs(directions).argmax(axis=1)
        directions *= np.sign(directions[np.arange(len(order)), largest])[:, None]  # one sign, whatever the library
        self.components = directions
        stds = np.sqrt(np.clip(variances[order], 0, None))
        self.component_scale = np.where(stds > 1e-12, stds, 1.0) if self.whiten else np.ones_like(stds)

    def _fitted(self, n: int) -> tuple[Array, Array]:
        if self.mean is None or self.scale is None:
            raise InputError("`Scaler` must learn from data first: call `fit`")
        if n != len(self.mean) and (self.components is None or n != len(self.components)):
            raise ShapeError(f"`x` must have {len(self.mean)} features along its last axis; got {n}")
        return self.mean, self.scale

    def transform(self, x: Any) -> Array:
        """Scaled features, in the type of the data where that is floating; same shape, unless components are fewer.

        Raises:
            InputError: If nothing has been learnt.
            ShapeError: If there are not as many features as then.
        """
        values, dtype = _floating(x)
        mean, scale = self._fitted(values.shape[-1])
        z = (values - mean) / scale
        if self.components is not None and self.component_scale is not None:
            z = z @ self.components.T / self.component_scale
        return z.astype(dtype, copy=False)

    def inverse_transform(self, x: Any) -> Array:
        """Features as they were before `transform`.

        Raises:
            InputError: If nothing has been learnt.
            ShapeError: If there are not as many features as then.
        """
        z, dtype = _floating(x)
        mean, scale = self._fitted(z.shape[-1])
        if self.components is not None and self.component_scale is not None:
            z = (z * self.component_scale) @ self.components
        return (z * scale + mean).astype(dtype, copy=False)

    def fit_transform(self, x: Any, weights: Any = None, mask: Any = None) -> Array:
        """Learn from data and scale them."""
        return self.fit(x, weights, mask).transform(x)

    def to_dict(self) -> dict[str, Any]:
        """All there is, as values that JSON takes."""
        learnt = {name: getattr(self, name) for name in ("mean", "scale", "components", "component_scale")}
        return {
            "with_mean": self.with_mean,
            "with_std": self.with_std,
            "pca": self.pca,
            "whiten": self.whiten,
            "n_components": self.n_components,
        } | {name: None if value is None else value.tolist() for name, value in learnt.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scaler:
        """The scaler that `to_dict` described.

        Raises:
            InputError: If something is missing or does not fit.
        """
        try:
            made = cls(*(values[name] for name in ("with_mean", "with_std", "pca", "whiten", "n_components")))
            for name in ("mean", "scale", "components", "component_scale"):
                value = values[name]
                setattr(made, name, None if value is None else np.asarray(value, dtype=np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"`values` must describe a scaler as `Scaler.to_dict` does: {error!r}") from error
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            StorageError: If the file cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scaler:
        """Read it from JSON.

        Raises:
            StorageError: If the file cannot be read.
            FileDamagedError: If it does not hold a scaler.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except OSError as error:
            raise StorageError(f"cannot read `{path}`: {error.strerror}; check the path") from error
        except ValueError as error:
            raise FileDamagedError(f"`{path}` must hold a scaler as JSON ({error})") from error

    def __repr__(self) -> str:
        state = "nothing learnt" if self.mean is None else f"{len(self.mean)} features"
        return f"{type(self).__name__}({state}{', principal components' if self.pca else ''})"


def _floating(x: Any) -> tuple[Array, np.dtype[Any]]:
    """Values as float64, and the type to give back."""
    array = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    return array.astype(np.float64), array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)


def get_pre_proc_pipes(
    norm_in: bool = True,
    norm_out: bool = False,
    pca: bool = False,
    whiten: bool = False,
    with_mean: bool = True,
    with_std: bool = True,
    n_components: int | None = None,
) -> tuple[Scaler, Scaler]:
    """Scalers of inputs and targets that have yet to learn.

    Args:
        norm_in: Whether to shift and scale inputs.
        norm_out: Whether to shift and scale targets.
        pca: Whether to rotate inputs to principal components.
        whiten: Whether to scale those to variance 1.
        with_mean: Whether to shift.
        with_std: Whether to scale.
        n_components: Number of components to keep.
    """
    return (
        Scaler(norm_in and with_mean, norm_in and with_std, pca, whiten, n_components),
        Scaler(norm_out and with_mean, norm_out and with_std),
    )


def _table(df: Any, name: str, feats: Sequence[str]) -> Array:
    known = [str(c) for c in (df.columns if hasattr(df, "columns") else df)]
    for feat in feats:
        if feat not in known:
            raise InputError(f"`{name}` must be columns of the table; {feat!r} is none{did_you_mean(feat, known)}")
    return np.stack([np.asarray(df[feat], dtype=np.float64) for feat in feats], axis=1)


def fit_input_pipe(
    df: Any,
    cont_feats: Sequence[str] | str,
    savename: str | os.PathLike[str] | None = None,
    input_pipe: Scaler | None = None,
    norm_in: bool = True,
    pca: bool = False,
    whiten: bool = False,
    with_mean: bool = True,
    with_std: bool = True,
) -> Scaler:
    """Learn the scaling of continuous features.

    Args:
        df: Table: dict of arrays, or DataFrame of pandas.
        cont_feats: Features.
        savename: Where to write it as JSON; ``.json`` is added where there is no suffix.
        input_pipe: A scaler to teach, instead of a new one.
        norm_in: See `get_pre_proc_pipes`.
        pca: See `get_pre_proc_pipes`.
        whiten: See `get_pre_proc_pipes`.
        with_mean: See `get_pre_proc_pipes`.
        with_std: See `get_pre_proc_pipes`.

    Raises:
        InputError: If a column is not there, infinite, or has no value.
    """
    feats = [cont_feats] if isinstance(cont_feats, str) else list(cont_feats)
    pipe = input_pipe or get_pre_proc_pipes(norm_in, False, pca, whiten, with_mean, with_std)[0]
    return _saved(pipe.fit(_table(df, "cont_feats", feats)), savename)


def fit_output_pipe(
    df: Any,
    targ_feats: Sequence[str] | str,
    savename: str | os.PathLike[str] | None = None,
    output_pipe: Scaler | None = None,
    norm_out: bool = True,
) -> Scaler:
    """Learn the scaling of targets.

    Args:
        df: Table: dict of arrays, or DataFrame of pandas.
        targ_feats: Targets.
        savename: Where to write it as JSON; ``.json`` is added where there is no suffix.
        output_pipe: A scaler to teach, instead of a new one.
        norm_out: Whether to shift and scale.

    Raises:
        InputError: If a column is not there, infinite, or has no value.
    """
    feats = [targ_feats] if isinstance(targ_feats, str) else list(targ_feats)
    pipe = output_pipe or get_pre_proc_pipes(norm_out=norm_out)[1]
    return _saved(pipe.fit(_table(df, "targ_feats", feats)), savename)


def _saved(pipe: Scaler, savename: str | os.PathLike[str] | None) -> Scaler:
    if savename is not None:
        path = Path(savename)
        pipe.save(path if path.suffix else path.with_suffix(".json"))
    return pipe


def _is_absent(column: Array) -> Array:
    """Which values are NaN or None."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind != "O":
        return np.zeros(len(column), dtype=bool)
    return np.array([value is None or value != value for value in column], dtype=bool)


def proc_cats(
    train_df: MutableMapping[str, Any] | Any,
    cat_feats: Sequence[str],
    val_df: MutableMapping[str, Any] | Any | None = None,
    test_df: MutableMapping[str, Any] | Any | None = None,
) -> tuple[dict[str, dict[int, Any]], dict[str, int]]:
    """Replace categories by codes 0, 1, ... in tables, the same in all of them.

    All values of a column are coded at once. (The original replaces them one after the other, so that -1, 0, 1 all end
    as one code.)

    Args:
        train_df: Table whose values make the codes, in ascending order; changed in place.
        cat_feats: Columns.
        val_df: Table to code likewise.
        test_df: Table to code likewise.

    Returns:
        For each column what its codes mean, and for each how many there are.

    Raises:
        InputError: If a column is not there, a value NaN, or a value of the other tables not among those of the first.
    """
    tables = {"train_df": train_df, "val_df": val_df, "test_df": test_df}
    maps: dict[str, dict[int, Any]] = {}
    coded: list[tuple[Any, str, Array]] = []
    for feat in cat_feats:
        values = None
        for name, table in tables.items():
            if table is None:
                continue
            known = [str(c) for c in (table.columns if hasattr(table, "columns") else table)]
            if feat not in known:
                raise InputError(
                    f"`cat_feats` must be columns of `{name}`; {feat!r} is none{did_you_mean(feat, known)}"
                )
            column = np.asarray(table[feat])
            absent = _is_absent(column)
            if absent.any():
                first = int(np.flatnonzero(absent)[0])
                raise InputError(
                    f"category `{feat}` of `{name}` must have a value in every row; {int(absent.sum())} of "
                    f"{len(column)} are NaN, the first in row {first}: fill them with a category of their own"
                )
            if values is None:
                values = np.unique(column)
            codes = np.searchsorted(values, column).clip(max=len(values) - 1)
            unknown = values[codes] != column
            if unknown.any():
                shown = sorted({str(v) for v in column[unknown]})[:5]
                raise InputError(f"category `{feat}` of `{name}` must only have values of `train_df`; got {shown}")
            coded.append((table, feat, codes.astype(np.int64)))
        assert values is not None
        maps[feat] = {code: value.item() if hasattr(value, "item") else value for code, value in enumerate(values)}
    for table, feat, codes in coded:  # nothing is changed before everything has been checked
        table[feat] = codes
    return maps, {feat: len(codes) for feat, codes in maps.items()}
