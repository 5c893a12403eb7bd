"""The columns of a table of hits, and maps that read the tables of others.

One row is one hit. Every file format holds the same columns:

| column | type | what | needed |
|---|---|---|---|
| `event` | int64 | number of the muon; rows of one event are contiguous | yes |
| `plane` | int32 | detector plane, counted from the top | derived from `z` |
| `position` | text | `above` or `below` the volume | derived from `z` if the volume is known |
| `x`, `y`, `z` | float64 | where the plane was crossed, m | yes |
| `x_unc`, `y_unc` | float64 | standard deviations of x and y, m | yes |
| `momentum`, `momentum_unc` | float64 | of the muon, GeV | no |
| `time` | float64 | s | no |
| `true_x`, `true_y` | float64 | without measurement error, m | no |

A column map says, for every column of ours that is called otherwise in a foreign file, how to get it. It is
written in YAML:

    table: data/hits              # TTree or HDF5 group; optional
    event: evt                    # their name, same unit
    x: X [mm]                     # their name and unit
    y: {column: Y, unit: mm}      # the same, at length
    x_unc: 0.1 mm                 # a constant
    position: {column: side, values: {0: above, 1: below}}
    z: {planes: [2.0, 1.9, 0.1, 0.0], unit: m}   # heights by plane number

Columns that the map does not name are looked up under our name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from diffdet.core import units
from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError, StorageError

__all__ = [
    "ALL_COLUMNS",
    "BASE_COLUMNS",
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "POSITIONS",
    "Column",
    "ColumnMap",
    "Rule",
    "parse_quantity",
]

POSITIONS: Final = ("above", "below")
"""Values of the column `position`; the index of a value is its side in a `HitTable`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of hits.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its type in a file; ``"text"`` for `position`.
        dimension: ``"length"``, ``"momentum"``, ``"time"``, or ``""`` where it has no unit.
        positive: Whether only values above zero are allowed.
    """

    name: str
    dtype: str
    dimension: str = ""
    positive: bool = False


COLUMNS: Final[dict[str, Column]] = {
    column.name: column
    for column in (
        Column("event", "int64"),
        Column("plane", "int32"),
        Column("position", "text"),
        Column("x", "float64", "length"),
        Column("y", "float64", "length"),
        Column("z", "float64", "length"),
        Column("x_unc", "float64", "length", positive=True),
        Column("y_unc", "float64", "length", positive=True),
        Column("momentum", "float64", "momentum", positive=True),
        Column("momentum_unc", "float64", "momentum"),
        Column("time", "float64", "time"),
        Column("true_x", "float64", "length"),
        Column("true_y", "float64", "length"),
    )
}
"""Every column that a table of hits may have, in the order in which files hold them."""

BASE_COLUMNS: Final = ("event", "plane", "position", "x", "y", "z", "x_unc", "y_unc")
"""Columns that every file of ours has."""

OPTIONAL_COLUMNS: Final = ("momentum", "momentum_unc", "time", "true_x", "true_y")
"""Columns that a file may have."""

ALL_COLUMNS: Final = BASE_COLUMNS + OPTIONAL_COLUMNS

_UNITS: Final[dict[str, dict[str, float]]] = {
    "length": {
        "m": units.m,
        "cm": units.cm,
        "mm": units.mm,
        "um": units.um,
        "micron": units.um,
        "µm": units.um,
        "μm": units.um,
        "nm": 1e-9,
        "km": units.km,
    },
    "momentum": {
        "GeV": units.GeV,
        "GeV/c": units.GeV,
        "MeV": units.MeV,
        "MeV/c": units.MeV,
        "keV": units.keV,
        "TeV": units.TeV,
        "TeV/c": units.TeV,
    },
    "time": {
        "s": units.s,
        "ms": units.ms,
        "us": units.us,
        "ns": units.ns,
        "ps": 1e-12,
        "min": units.minute,
        "h": units.hour,
    },
}

_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s]\S*)?\s*$")
_NAME_AND_UNIT = re.compile(r"^(.*\S)\s*\[\s*([^\[\]]+?)\s*\]\s*$")


def unit_factor(unit: object, dimension: str, where: str) -> float:
    """The factor that turns a number in `unit` into ours.

    Args:
        unit: Name of a unit.
        dimension: ``"length"``, ``"momentum"`` or ``"time"``.
        where: What the unit belongs to, for the message.

    Raises:
        InputError: If `unit` is no unit of the dimension.
    """
    if not dimension:
        raise InputError(f"{where} has no unit; got {unit!r}: leave `unit` out")
    known = _UNITS[dimension]
    if not isinstance(unit, str) or unit not in known:
        raise InputError(
            f"unit of {where} must be a {dimension}: {', '.join(known)}; got {unit!r}{did_you_mean(str(unit), known)}"
        )
    return known[unit]


def parse_quantity(text: str, dimension: str, where: str) -> float | None:
    """Read a number with a unit, such as ``"0.1 mm"``.

    Args:
        text: What to read; a number alone is in our unit.
        dimension: As for `unit_factor`.
        where: What the number belongs to, for the message.

    Returns:
        The number in our unit, or None when the text is no number at all.

    Raises:
        InputError: If the number's unit is not one of the dimension.
    """
    match = _QUANTITY.match(text)
    if match is None:
        return None
    number, unit = match.groups()
    return float(number) * (unit_factor(unit, dimension, where) if unit else 1.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """How to get one column of ours out of a foreign file.

    Exactly one of `source`, `constant`, `planes` and `split` is set.

    Attributes:
        source: Name of their column.
        factor: What their numbers are multiplied by.
        values: Our text by theirs, for `position`.
        constant: One value for all rows, in our unit.
        planes: Heights by plane number, m, for `z`.
        split: Height above which hits are `above`, m, for `position`.
    """

    source: str | None = None
    factor: float = 1.0
    values: Mapping[str, str] = field(default_factory=dict)
    constant: float | str | None = None
    planes: Mapping[int, float] | None = None
    split: float | None = None


@dataclass(frozen=True)
class ColumnMap:
    """Where the columns of a foreign table are. Build it with `load`; the default one looks up our own names.

    Attributes:
        rules: A rule for every column that is not simply called as ours is.
        table: Name of the TTree or HDF5 group that holds the table; None for the default.
        origin: Where the map came from, for messages.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    table: str | None = None
    origin: str = "`columns`"

    def rule(self, name: str) -> Rule:
        """The rule of a column of ours."""
        return self.rules.get(name) or Rule(source=name)

    @classmethod
    def load(cls, source: ColumnMap | Mapping[str, Any] | str | Path | None) -> ColumnMap:
        """Read a column map.

        Args:
            source: A YAML file, its content as a mapping, a map already read, or None for our own names.

        Raises:
            InputError: If the content is no column map; the message names the column and what was expected.
            StorageError: If the file cannot be read.
        """
        if source is None:
            return cls()
        if isinstance(source, ColumnMap):
            return source
        if isinstance(source, Mapping):
            return cls._from_mapping(source, "`columns`")
        return cls._from_mapping(_read_yaml(Path(source)), str(source))

    @classmethod
    def _from_mapping(cls, content: object, origin: str) -> ColumnMap:
        if not isinstance(content, Mapping):
            raise InputError(
                f"column map {origin} must be a mapping of our columns to theirs; got {type(content).__name__}"
            )
        table = content.get("table")
        if table is not None and not isinstance(table, str):
            raise InputError(f"column map {origin}: `table` must be the name of a TTree or HDF5 group; got {table!r}")
        rules: dict[str, Rule] = {}
        for name, entry in content.items():
            if name == "table":
                continue
            if name not in COLUMNS:
                raise InputError(
                    f"column map {origin}: `{name}` is no column of a hits table; known are {', '.join(COLUMNS)} and "
                    f"`table`{did_you_mean(str(name), COLUMNS)}"
                )
            rules[name] = _rule(COLUMNS[name], entry, f"column map {origin}: `{name}`")
        return cls(rules, table, origin)


def _read_yaml(path: Path) -> object:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"column map {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise InputError(f"column map {path} must be a YAML text in UTF-8; {error}") from None
    except OSError as error:
        raise StorageError(f"column map {path} cannot be read: {error.strerror}") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"column map {path} must be YAML; {' '.join(str(error).split())}") from None


def _rule(column: Column, entry: object, where: str) -> Rule:
    """The rule that one entry of a column map describes."""
    if isinstance(entry, Mapping):
        return _rule_at_length(column, entry, where)
    if isinstance(entry, bool) or not isinstance(entry, str | int | float):
        raise InputError(
            f"{where} must be the name of their column, a constant with its unit, or a mapping; got {entry!r}"
        )
    if column.dtype == "text" and entry in POSITIONS:
        return Rule(constant=entry)
    if isinstance(entry, str):
        if column.dimension:
            constant = parse_quantity(entry, column.dimension, where)
            if constant is not None:
                return Rule(constant=_checked_constant(column, constant, where))
        match = _NAME_AND_UNIT.match(entry)
        if match:
            name, unit = match.groups()
            return Rule(source=name, factor=unit_factor(unit, column.dimension, where))
        return Rule(source=entry)
    return Rule(constant=_checked_constant(column, entry, where))


def _rule_at_length(column: Column, entry: Mapping[Any, Any], where: str) -> Rule:
    """The rule of an entry that is a mapping."""
    allowed = ["column", "value", "unit"]
    allowed += {"position": ["values", "split"], "z": ["planes"]}.get(column.name, [])
    for key in entry:
        if key not in allowed:
            raise InputError(f"{where} may have {', '.join(allowed)}; got {key!r}{did_you_mean(str(key), allowed)}")
    kinds = [key for key in ("column", "value", "planes", "split") if key in entry]
    if len(kinds) != 1:
        raise InputError(
            f"{where} must have exactly one of {', '.join(key for key in allowed if key not in ('unit', 'values'))}; "
            f"got {', '.join(kinds) or 'none'}"
        )
    dimension = "length" if kinds == ["split"] else column.dimension
    factor = unit_factor(entry["unit"], dimension, where) if "unit" in entry else 1.0
    if "column" in entry:
        if not isinstance(entry["column"], str):
            raise InputError(f"{where}: `column` must be the name of their column; got {entry['column']!r}")
        return Rule(source=entry["column"], factor=factor, values=_labels(entry.get("values", {}), where))
    if "planes" in entry:
        return Rule(planes=_heights(entry["planes"], factor, where))
    if "split" in entry:
        return Rule(split=_number(entry["split"], "length", f"{where}: `split`") * factor)
    value = entry["value"]
    if column.dtype == "text":
        if value not in POSITIONS:
            raise InputError(f"{where}: `value` must be 'above' or 'below'; got {value!r}")
        return Rule(constant=value)
    return Rule(
        constant=_checked_constant(column, _number(value, column.dimension, f"{where}: `value`") * factor, where)
    )


def _number(value: object, dimension: str, where: str) -> float:
    """A number, or a text with a number and a unit."""
    if isinstance(value, str):
        number = parse_quantity(value, dimension, where)
        if number is not None:
            return number
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise InputError(f"{where} must be a number, with a unit or without; got {value!r}")


def _checked_constant(column: Column, value: float, where: str) -> float:
    """A constant that may stand for a whole column."""
    if column.name == "event" or column.dtype == "text":
        raise InputError(f"{where} must be the name of their column; got the constant {value!r}")
    if not abs(value) < float("inf"):
        raise InputError(f"{where} must be finite; got {value!r}")
    if column.positive and value <= 0:
        raise InputError(f"{where} must be greater than 0; got {value!r}")
    if column.dtype.startswith("int") and value != int(value):
        raise InputError(f"{where} must be a whole number; got {value!r}")
    return value


def _labels(values: object, where: str) -> dict[str, str]:
    """Our text by theirs."""
    if not isinstance(values, Mapping) or not all(ours in POSITIONS for ours in values.values()):
        raise InputError(f"{where}: `values` must map their values to 'above' or 'below'; got {values!r}")
    return {str(theirs): str(ours) for theirs, ours in values.items()}


def _heights(planes: object, factor: float, where: str) -> dict[int, float]:
    """Heights by plane number, in m."""
    if isinstance(planes, list):
        planes = dict(enumerate(planes))
    if not isinstance(planes, Mapping) or not planes or not all(type(plane) is int for plane in planes):
        raise InputError(
            f"{where}: `planes` must list the heights of the planes, or map plane numbers to them; got {planes!r}"
        )
    return {plane: _number(z, "length", f"{where}: height of plane {plane}") * factor for plane, z in planes.items()}
