"""From the columns of a file, whatever it calls them, to checked rows of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.tomography.io.columns import (
    ALL_COLUMNS,
    BASE_COLUMNS,
    COLUMNS,
    OPTIONAL_COLUMNS,
    POSITIONS,
    ColumnMap,
    Rule,
)
from diffdet.tomography.io.formats.base import Array, Arrays, Source, file_dtype

__all__ = ["MAX_EVENT_ROWS", "Contiguity", "Plan", "RowReader", "check_rows", "make_plan"]

MAX_EVENT_ROWS: Final = 4096
"""Hits that one event may have: a file with more is no table of muons, and one endless event could fill the memory."""

_NO_SIDE: Final = 255
_MAX_BLOCKS: Final = 1024


@dataclass(frozen=True)
class Plan:
    """What to read from a file to get our columns.

    Attributes:
        columns: Our columns that the rows will have, in our order.
        sources: Columns of the file to read.
        dtypes: Type that each of them is parsed to, for formats without types.
    """

    columns: tuple[str, ...]
    sources: tuple[str, ...]
    dtypes: Mapping[str, str]


def make_plan(source: Source, mapping: ColumnMap, split_z: float | None) -> Plan:
    """Decide which columns to read, before any is read.

    Args:
        source: The open file.
        mapping: Where our columns are.
        split_z: Height above which hits are `above`, m, for files that do not tell.

    Raises:
        InputError: If a column that is needed is missing or of the wrong kind.
    """
    columns: list[str] = []
    dtypes: dict[str, str] = {}
    for name in (*BASE_COLUMNS, *OPTIONAL_COLUMNS):
        rule = mapping.rule(name)
        if rule.source is None:
            columns.append(name)
            continue
        if rule.source not in source.kinds:
            if name in mapping.rules:
                _refuse_missing(source, f"`{rule.source}`, which {mapping.origin} names for `{name}`", rule.source)
            if name in OPTIONAL_COLUMNS or name == "plane" or (name == "position" and split_z is not None):
                continue
            _refuse_missing(source, f"`{name}`", name, _how_to_help(name))
        _check_kind(source, rule, name)
        columns.append(name)
        dtype = COLUMNS[name].dtype
        wanted = "text" if dtype == "text" else dtype
        if dtypes.setdefault(rule.source, wanted) != wanted:
            dtypes[rule.source] = "float64"
    _check_derivations(source, mapping, columns)
    return Plan(tuple(columns), tuple(dtypes), dtypes)


def _refuse_missing(source: Source, what: str, name: str, advice: str = "") -> NoReturn:
    has = ", ".join(f"`{kind}`" for kind in source.kinds) or "none"
    raise InputError(f"{source.path} has no column {what}; it has {has}{did_you_mean(name, source.kinds)}{advice}")


def _how_to_help(name: str) -> str:
    if name in ("x_unc", "y_unc"):
        return f". Give a constant in a column map, such as `{name}: 0.1 mm`"
    if name == "position":
        return ". Give `position: {split: HEIGHT}` in a column map: hits higher than that are above the volume"
    if name == "z":
        return ". Give the heights of the planes in a column map: `z: {planes: [...]}`"
    return ". Say in a column map what it is called in this file"


def _check_kind(source: Source, rule: Rule, name: str) -> None:
    """Refuse a column whose kind cannot become ours."""
    kind = source.kinds[str(rule.source)]
    dtype = COLUMNS[name].dtype
    allowed = {"text": ("text", "i", "any") if rule.values else ("text", "any")}.get(
        dtype, ("i", "any") if dtype.startswith("int") else ("i", "f", "any")
    )
    if kind in allowed:
        return
    expected = {"text": "text, 'above' or 'below'", "int64": "whole numbers", "int32": "whole numbers"}.get(
        dtype, "numbers"
    )
    got = {"i": "whole numbers", "f": "real numbers"}.get(kind, kind)
    advice = (
        "; map its values in a column map: `position: {column: ..., values: {0: above, 1: below}}`"
        if name == "position"
        else ""
    )
    raise InputError(f"{source.path}: column `{rule.source}` must hold {expected} for `{name}`; it holds {got}{advice}")


def _check_derivations(source: Source, mapping: ColumnMap, columns: list[str]) -> None:
    """Refuse rules that need a column which is not there."""
    if mapping.rule("z").planes is not None and "plane" not in columns:
        raise InputError(
            f"{source.path} has no column `plane`, by which {mapping.origin} gives the heights `z: planes`"
        )


class RowReader:
    """Turns batches of a file into rows of ours and checks each of them.

    Args:
        source: The open file.
        mapping: Where our columns are.
        plan: Which of them to read.
        split_z: As for `make_plan`.
    """

    def __init__(self, source: Source, mapping: ColumnMap, plan: Plan, split_z: float | None) -> None:
        self._source = source
        self._mapping = mapping
        self._plan = plan
        self._split_z = split_z
        self._row = 0

    def convert(self, batch: Arrays) -> dict[str, Array]:
        """Rows of ours, without `plane` if it must be derived from whole events.

        Raises:
            InputError: At the first value that is refused: file, row, column, value, what was expected.
        """
        n = len(next(iter(batch.values()))) if batch else 0
        rows: dict[str, Array] = {}
        for name in self._plan.columns:
            if name != "position":
                rows[name] = self._numbers(name, self._mapping.rule(name), batch, rows, n)
        rows["position"] = self._sides(self._mapping.rule("position"), batch, rows["z"])
        self._row += n
        return {name: rows[name] for name in ALL_COLUMNS if name in rows}

    def _numbers(self, name: str, rule: Rule, batch: Arrays, rows: Arrays, n: int) -> Array:
        dtype = file_dtype(name)
        if rule.planes is not None:
            return self._heights(rule.planes, rows["plane"])
        if rule.constant is not None:
            return np.full(n, rule.constant, dtype=dtype)
        theirs = batch[str(rule.source)]
        values = theirs.astype(dtype)
        if dtype.startswith("int"):
            wrong = values != theirs
            if wrong.any():
                self._refuse(name, rule, theirs, wrong, f"a whole number that fits into {dtype}")
            return values
        self._check_reals(name, rule, values, theirs)
        return values * rule.factor if rule.factor != 1.0 else values

    def _check_reals(self, name: str, rule: Rule, values: Array, theirs: Array) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            self._refuse(name, rule, theirs, ~finite, "a finite number: a missing hit is an absent row")
        if COLUMNS[name].positive and (values <= 0).any():
            self._refuse(name, rule, theirs, values <= 0, "a number greater than 0")
        if name == "momentum_unc" and (values < 0).any():
            self._refuse(name, rule, theirs, values < 0, "a number of at least 0")

    def _heights(self, planes: Mapping[int, float], plane: Array) -> Array:
        numbers = np.array(list(planes), dtype=np.int64)
        order = np.argsort(numbers)
        heights = np.array(list(planes.values()), dtype=np.float64)[order]
        at = np.searchsorted(numbers[order], plane).clip(max=len(numbers) - 1)
        unknown = numbers[order][at] != plane
        if unknown.any():
            known = ", ".join(map(str, sorted(planes)))
            self._refuse(
                "plane", self._mapping.rule("plane"), plane, unknown, f"one of the planes {known} of the column map"
            )
        return heights[at]

    def _sides(self, rule: Rule, batch: Arrays, z: Array) -> Array:
        split = rule.split if "position" in self._plan.columns else self._split_z
        if split is not None:
            return (z <= split).astype(np.uint8)
        n = len(z)
        if rule.constant is not None:
            return np.full(n, POSITIONS.index(str(rule.constant)), dtype=np.uint8)
        theirs = batch[str(rule.source)]
        labels = dict(rule.values) or {position: position for position in POSITIONS}
        sides = np.full(n, _NO_SIDE, dtype=np.uint8)
        for label, ours in labels.items():
            sides[_equal(theirs, label)] = POSITIONS.index(ours)
        unknown = sides == _NO_SIDE
        if unknown.any():
            self._refuse("position", rule, theirs, unknown, " or ".join(map(repr, labels)))
        return sides

    def _refuse(self, name: str, rule: Rule, values: Array, wrong: Array, expected: str) -> NoReturn:
        at = int(np.argmax(wrong))
        value = values[at].item() if hasattr(values[at], "item") else values[at]
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        column = f"`{rule.source}`" + (f" (our `{name}`)" if rule.source != name else "")
        row = self._source.row_text(self._row + at)
        raise InputError(f"{self._source.path}, {row}: column {column} must hold {expected}; got {value!r}")


def _equal(theirs: Array, label: str) -> Array:
    """Where their values equal a label of the column map."""
    if theirs.dtype.kind in "iu":
        return theirs == int(label) if label.lstrip("-").isdigit() else np.zeros(len(theirs), dtype=bool)
    if theirs.dtype.kind == "b":
        return (
            theirs == (label in ("True", "1")) if label in ("True", "False", "0", "1") else np.zeros(len(theirs), bool)
        )
    if theirs.dtype.kind == "S" or (theirs.dtype.kind == "O" and len(theirs) and isinstance(theirs[0], bytes)):
        return theirs == label.encode()
    return theirs == label


class Contiguity:
    """Refuses an event whose rows are not together.

    Numbers that grow, and blocks of growing numbers that do not overlap (merged files), need no memory. Only where
    blocks overlap must the numbers themselves be compared; then those of the rows before are collected once, 8 bytes an
    event.

    Args:
        describe: Makes the message from the event's number and its row.
        earlier: Gives the numbers of all events that begin before a row.
    """

    def __init__(self, describe: Callable[[int, int], str], earlier: Callable[[int], Array]) -> None:
        self._describe = describe
        self._earlier = earlier
        self._blocks: list[tuple[int, int]] = []
        self._seen: Array | None = None
        self._last: int | None = None

    def add(self, events: Array, first_row: int) -> None:
        """Look at the events of the next rows.

        Args:
            events: Numbers of the events that begin in these rows, or continue there from the rows before.
            first_row: Row of the first of them.

        Raises:
            InputError: If one of them was complete before.
        """
        new = np.flatnonzero(np.diff(events, prepend=events[:1] if self._last is None else self._last))
        if self._last is None and len(events):
            new = np.concatenate([[0], new[new > 0]])
        begins = events[new]
        if not len(begins):
            return
        self._last = int(events[-1])
        if self._seen is not None:
            self._compare(begins, new, first_row)
            return
        # Cut where the numbers fall: between the cuts they grow, so no number comes twice.
        cuts = np.flatnonzero(np.diff(begins) < 0) + 1
        for at, part in zip([0, *cuts.tolist()], np.split(begins, cuts), strict=True):
            low, high = int(part[0]), int(part[-1])
            if self._is_free(low, high):
                self._blocks.append((low, high))
            else:
                self._seen = np.unique(np.concatenate([self._earlier(first_row + int(new[at])), begins[:at]]))
                self._compare(begins[at:], new[at:], first_row)
                return

    def _is_free(self, low: int, high: int) -> bool:
        """Whether a range of numbers meets none of the blocks before."""
        if len(self._blocks) > _MAX_BLOCKS:
            # Neighbours in pairs: wider blocks may meet a later one for no reason, which costs memory, not correctness.
            ordered = sorted(self._blocks)
            pairs = zip(ordered[::2], [*ordered[1::2], ordered[-1]], strict=False)
            self._blocks = [(first[0], second[1]) for first, second in pairs]
        return all(low > block[1] or high < block[0] for block in self._blocks)

    def _compare(self, begins: Array, rows: Array, first_row: int) -> None:
        """Compare numbers one by one with all that were seen."""
        assert self._seen is not None
        _, first_at = np.unique(begins, return_index=True)
        again = np.ones(len(begins), dtype=bool)
        again[first_at] = False
        again |= np.isin(begins, self._seen)
        if again.any():
            at = int(np.argmax(again))
            raise InputError(self._describe(int(begins[at]), first_row + int(rows[at])))
        self._seen = np.union1d(self._seen, begins)


def check_rows(rows: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Array]:
    """Rows that are about to be written, in our types, after refusing what no reader would accept.

    Args:
        rows: Columns by name; `position` as sides (0 above, 1 below) or as text.
        names: The columns of the file.

    Raises:
        InputError: If a column is missing, has another length, or holds what is not allowed.
    """
    missing = [name for name in names if name not in rows]
    if missing:
        raise InputError(f"`rows` must have the columns {', '.join(names)}; `{missing[0]}` is missing")
    checked: dict[str, Array] = {}
    for name in names:
        values = given = np.asarray(rows[name])
        column = COLUMNS[name]
        if values.ndim != 1 or len(values) != len(np.asarray(rows[names[0]])):
            raise InputError(
                f"`rows`: column `{name}` must be one-dimensional and as long as the others; got shape {values.shape}"
            )
        if column.dtype == "text" and values.dtype.kind not in "iu":
            sides = np.full(len(values), _NO_SIDE, dtype=np.uint8)
            for side, label in enumerate(POSITIONS):
                sides[_equal(values, label)] = side
            values = sides
        wrong = values > 1 if column.dtype == "text" else ~np.isfinite(values)
        if column.positive:
            wrong |= values <= 0
        if wrong.any():
            at = int(np.argmax(wrong))
            expected = (
                "'above' or 'below'" if column.dtype == "text" else "finite" + " and greater than 0" * column.positive
            )
            raise InputError(
                f"`rows`, row {at} (counted from 0): column `{name}` must be {expected}; got {given[at].item()!r}"
            )
        checked[name] = np.ascontiguousarray(values, dtype=file_dtype(name))
    return checked
