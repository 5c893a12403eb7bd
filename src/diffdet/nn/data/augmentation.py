"""Augmentation by symmetries of collisions: turns about the beam, and reflections.

Collisions know no azimuth: an event turned about the beam, or reflected, is as likely as itself. Trained on turned
events a network learns that; asked for several turned versions of an event, the mean of its predictions is steadier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from diffdet.core.checks import check_in_range, did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.nn.data._folds import AbsFoldYielder, Array, Fold

__all__ = ["HEPAugFoldYielder"]


class HEPAugFoldYielder:
    """Yields folds whose events are turned and reflected: at random to train on, by a fixed grid to predict.

    Momenta of all vectors of an event, in flat features, in the matrix and, if asked for, in targets, are changed
    together. They are changed in their own unit: where a scaler was applied, it is undone for the change and applied
    again after. (The original turns momenta as they are yielded, standardised, which is no turn unless px and py share
    mean 0 and one scale; and at test time with random turns it turns targets by another angle than inputs.)

    Vectors are found by their columns ``{vec}_px``, ``{vec}_py``, ``{vec}_pz``, or ``{vec}_phi`` and ``{vec}_eta``; in
    matrices by the features ``px``, ... of objects. A vector needs px and py, or phi, to be turned.

    Args:
        fy: Folds to augment, `ArrayFoldYielder` or `FoldYielder`; its `input_pipe` and `matrix_pipe`, where it has
            them, are taken for what scaled its features.
        rot_mult: Number of turns of the grid at test time; 0 for none.
        random_rot: Whether turns at test time are random, too, the same in every epoch.
        reflect_x: Whether to reflect x.
        reflect_y: Whether to reflect y.
        reflect_z: Whether to reflect z.
        train_time_aug: Whether `get_train_fold` changes events.
        test_time_aug: Whether `get_test_folds` yields several versions.
        targ_feats: Names of the targets, where these are momenta that are to be changed as well.
        seed: Seed of the random changes where training gives none, and of random turns at test time.

    Raises:
        InputError: If there is no vector to change, or nothing to change about it; if targets do not fit their names.

    Attributes:
        aug_mult: Number of versions of an event at test time.
    """

    def __init__(
        self,
        fy: AbsFoldYielder,
        rot_mult: int = 4,
        random_rot: bool = False,
        reflect_x: bool = False,
        reflect_y: bool = True,
        reflect_z: bool = True,
        train_time_aug: bool = True,
        test_time_aug: bool = True,
        *,
        targ_feats: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        check_in_range("rot_mult", rot_mult, 0, 1000)
        self.fy = fy
        self.rot_mult, self.random_rot = int(rot_mult), random_rot
        self.reflect_axes = [axis for axis, on in (("x", reflect_x), ("y", reflect_y), ("z", reflect_z)) if on]
        self.train_time_aug, self.test_time_aug = train_time_aug, test_time_aug
        self.seed = seed
        names = fy.get_use_cont_feats()
        scaled = _scales(fy.input_pipe, fy.cont_feats, names)
        self._flat = _Columns(names, *scaled)
        feats = [str(f) for f in fy.matrix_feats.get("feats_per_vec", ())] if fy.has_matrix and fy.yield_matrix else []
        self._matrix = _Columns([f"object_{feat}" for feat in feats], *_scales(fy.matrix_pipe, feats, feats))
        self._row_wise = fy.row_wise
        self._targets = _Columns(
            list(targ_feats or ()), *_scales(fy.output_pipe, fy.targ_feats, list(targ_feats or ()))
        )
        if not (self._flat.found or self._matrix.found):
            known = names + feats
            raise InputError(
                "`fy` must have vectors to change: columns such as jet_px and jet_py, or jet_phi; it has "
                f"{', '.join(known) or 'none'}{did_you_mean('jet_px', known)}"
            )
        if not self.rot_mult and not random_rot and not self.reflect_axes:
            raise InputError("`rot_mult` or a reflection must be asked for; got nothing to change")
        if targ_feats is not None and not self._targets.found:
            raise InputError(f"`targ_feats` must be momenta such as jet_px and jet_py; got {list(targ_feats)}")
        self.aug_mult = max(1, self.rot_mult) * 2 ** len(self.reflect_axes)

    def __getattr__(self, name: str) -> Any:
        if name == "fy":
            raise AttributeError(name)
        return getattr(self.fy, name)

    def __len__(self) -> int:
        return len(self.fy)

    def __getitem__(self, idx: int) -> Fold:
        return self.get_fold(idx)

    def __iter__(self) -> Iterator[Fold]:
        for idx in range(len(self)):
            yield self.get_fold(idx)

    def get_fold(self, idx: int) -> Fold:
        """One fold as it is: what is validated on does not change."""
        return self.fy.get_fold(idx)

    def get_train_fold(self, idx: int, stream: Stream | None = None) -> Fold:
        """One fold with every event turned and reflected at random.

        Args:
            idx: Number of the fold.
            stream: Random numbers; of this yielder's seed where None.
        """
        fold = self.fy.get_fold(idx)
        if not self.train_time_aug:
            return fold
        n = self.fy.fold_size(idx)
        generator = (Stream(self.seed, "augment", idx) if stream is None else stream).generator("augment")
        turn = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64).numpy()
        coins = torch.rand(n, 3, generator=generator).numpy() < 0.5
        if not self.rot_mult and not self.random_rot:
            turn = np.zeros(n)
        signs = {axis: np.where(coins[:, k], -1.0, 1.0) for k, axis in enumerate("xyz") if axis in self.reflect_axes}
        return self._changed(fold, turn, signs)

    def get_test_folds(self, idx: int) -> Iterator[Fold]:
        """All versions of a fold for predictions, whose mean counts; targets are turned along.

        Args:
            idx: Number of the fold.

        Yields:
            `aug_mult` folds: every turn of the grid with every combination of reflections.
        """
        fold = self.fy.get_fold(idx)
        if not self.test_time_aug:
            yield fold
            return
        n = self.fy.fold_size(idx)
        for k in range(self.aug_mult):
            turn, signs = self._version(k, n, idx)
            yield self._changed(fold, turn, signs)

    def get_test_fold(self, idx: int, aug_idx: int) -> Fold:
        """One version of a fold; see `get_test_folds`.

        Raises:
            InputError: If there is no such version.
        """
        if not 0 <= aug_idx < self.aug_mult:
            raise InputError(f"`aug_idx` must be from 0 to {self.aug_mult - 1}; got {aug_idx}")
        return self._changed(self.fy.get_fold(idx), *self._version(aug_idx, self.fy.fold_size(idx), idx))

    def _version(self, k: int, n: int, idx: int) -> tuple[Array, dict[str, Array]]:
        """Turn and reflections of a version."""
        n_turns = max(1, self.rot_mult)
        signs = {
            axis: np.full(n, -1.0 if (k // n_turns) >> bit & 1 else 1.0) for bit, axis in enumerate(self.reflect_axes)
        }
        if self.random_rot:
            generator = Stream(self.seed, "augment test", idx, k).generator()
            return 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64).numpy(), signs
        return np.full(n, 2 * math.pi * (k % n_turns) / n_turns), signs

    def _changed(self, fold: Fold, turn: Array, signs: dict[str, Array]) -> Fold:
        """A fold whose events are turned, then reflected; the fold itself stays as it is."""
        changed = dict(fold)
        inputs = fold["inputs"]
        flat, matrix = (
            inputs if isinstance(inputs, tuple) else (inputs, None) if np.ndim(inputs) == 2 else (None, inputs)
        )
        if flat is not None and self._flat.found:
            flat = self._flat.changed(np.asarray(flat), turn, signs)
        if matrix is not None and self._matrix.found:
            rows = np.asarray(matrix) if self._row_wise else np.swapaxes(matrix, 1, 2)
            rows = self._matrix.changed(rows, turn[:, None], {axis: sign[:, None] for axis, sign in signs.items()})
            if fold.get("mask") is not None:
                rows = np.where(np.asarray(fold["mask"])[..., None], rows, rows.dtype.type(0))
            matrix = rows if self._row_wise else np.swapaxes(rows, 1, 2)
        changed["inputs"] = matrix if flat is None else flat if matrix is None else (flat, matrix)
        if self._targets.found and fold.get("targets") is not None:
            changed["targets"] = self._targets.changed(np.asarray(fold["targets"]), turn, signs)
        return changed


def _scales(pipe: Any, fitted: Sequence[str], used: Sequence[str]) -> tuple[Array, Array]:
    """Mean and scale of the features in use; 0 and 1 where nothing was scaled.

    Raises:
        InputError: If a scaler mixes features, or is not one of ours.
    """
    if pipe is None:
        return np.zeros(len(used)), np.ones(len(used))
    mean, scale = getattr(pipe, "mean", None), getattr(pipe, "scale", None)
    if mean is None or scale is None or getattr(pipe, "components", None) is not None or len(mean) != len(fitted):
        raise InputError(
            f"`fy` must be scaled by a `Scaler` without principal components, to turn momenta; got {pipe!r}"
        )
    place = {name: k for k, name in enumerate(fitted)}
    rows = [place[name] for name in used]
    return np.asarray(mean)[rows], np.asarray(scale)[rows]


class _Columns:
    """Where the components of vectors stand in an array, and how they are scaled."""

    def __init__(self, names: Sequence[str], mean: Array, scale: Array) -> None:
        self.mean, self.scale = mean, scale
        place = {name: k for k, name in enumerate(names)}
        ends = ("px", "py", "pz", "phi", "eta")
        vecs = dict.fromkeys(name[: -len(end) - 1] for name in names for end in ends if name.endswith(f"_{end}"))

        def column(vec: str, end: str) -> int | None:
            return place.get(f"{vec}_{end}")

        self.pairs = [
            (x, y) for vec in vecs if (x := column(vec, "px")) is not None and (y := column(vec, "py")) is not None
        ]
        self.angles = [k for vec in vecs if (k := column(vec, "phi")) is not None]
        self.along = [k for vec in vecs for end in ("pz", "eta") if (k := column(vec, end)) is not None]

    @property
    def found(self) -> bool:
        """Whether there is a vector to change."""
        return bool(self.pairs or self.angles)

    def changed(self, values: Array, turn: Array, signs: dict[str, Array]) -> Array:
        """A copy with vectors turned and reflected; `turn` and `signs` broadcast against all but the last axis."""
        result = np.array(values, copy=True)
        one = np.ones_like(turn)
        sign_x, sign_y, sign_z = (signs.get(axis, one) for axis in "xyz")
        cos, sin = np.cos(turn), np.sin(turn)

        def get(k: int) -> Array:
            return values[..., k] * self.scale[k] + self.mean[k]

        def put(k: int, new: Array) -> None:
            result[..., k] = (new - self.mean[k]) / self.scale[k]

        for x, y in self.pairs:
            px, py = get(x), get(y)
            put(x, sign_x * (cos * px - sin * py))
            put(y, sign_y * (sin * px + cos * py))
        for k in self.angles:
            phi = sign_y * (get(k) + turn)
            phi = np.where(sign_x * one < 0, math.pi - phi, phi)
            put(k, phi - 2 * math.pi * np.floor((phi + math.pi) / (2 * math.pi)))
        if "z" in signs:
            for k in self.along:
                put(k, sign_z * get(k))
        return result
