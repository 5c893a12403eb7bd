"""Numbers in a configuration: plain in the house's units, or strings that carry their own.

A length may be written as ``0.015``, ``"15 mm"`` or ``"1.5cm"``; angles and momenta likewise. Plain numbers are
metres, radians and GeV. A number that YAML 1.1 leaves as text (``1e4`` without a point) is read as the number that it
is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt
from pydantic import BeforeValidator, Strict, WithJsonSchema

from diffdet.runs.messages import refuse

LENGTH_UNITS: dict[str, float] = {"m": 1.0, "km": 1e3, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9}
ANGLE_UNITS: dict[str, float] = {"rad": 1.0, "mrad": 1e-3, "deg": math.pi / 180, "°": math.pi / 180}
MOMENTUM_UNITS: dict[str, float] = {"GeV": 1.0, "MeV": 1e-3, "TeV": 1e3, "keV": 1e-6}
TIME_UNITS: dict[str, float] = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}

_WITH_UNIT = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\s\d]\S*)?\s*$")


def parse_quantity(value: object, units: Mapping[str, float], what: str) -> object:
    """Turn a number, or a number with a unit, into a float in the base unit.

    Args:
        value: What stands in the file; anything that is neither a number nor text is handed on for pydantic to refuse.
        units: Size of each known unit in the base unit; the first is the base unit itself.
        what: Name of the quantity for the message, for example ``"a length"``; empty for numbers without unit.

    Returns:
        The number in base units, or the value unchanged when it is not text.

    Raises:
        PydanticCustomError: If the text is not a number, or its unit is not known.
    """
    if isinstance(value, bool) or not isinstance(value, str):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _WITH_UNIT.match(value)
    known = ", ".join(units)
    expected = (
        f"{what}: a number in {next(iter(units))}, or a number with one of the units {known}" if units else "a number"
    )
    if found is None:
        raise refuse(expected)
    number, unit = float(found.group(1)), found.group(2)
    if unit is None:
        return number
    if unit not in units:
        raise refuse(expected)
    # Divide where the unit is a negative power of ten: 15 / 1000 is the double nearest to 0.015, 15 * 0.001 is not.
    scale = units[unit]
    inverse = round(1 / scale) if scale < 1 else 0
    return number / inverse if inverse and math.isclose(inverse * scale, 1.0, rel_tol=1e-12) else number * scale


def _reader(units: Mapping[str, float], what: str) -> Callable[[Any], Any]:
    return lambda value: parse_quantity(value, units, what)


def _schema(units: Mapping[str, float], what: str, **limits: float) -> dict[str, Any]:
    text = {"type": "string", "description": f"{what} with a unit: {', '.join(units)}"}
    return {"anyOf": [{"type": "number", **limits}, text]} if units else {"type": "number", **limits}


Number = Annotated[float, BeforeValidator(_reader({}, "")), WithJsonSchema(_schema({}, ""))]
Positive = Annotated[
    float, BeforeValidator(_reader({}, "")), Gt(0), WithJsonSchema(_schema({}, "", exclusiveMinimum=0))
]
Length = Annotated[
    float, BeforeValidator(_reader(LENGTH_UNITS, "a length")), WithJsonSchema(_schema(LENGTH_UNITS, "a length"))
]
PositiveLength = Annotated[
    float,
    BeforeValidator(_reader(LENGTH_UNITS, "a length")),
    Gt(0),
    WithJsonSchema(_schema(LENGTH_UNITS, "a length", exclusiveMinimum=0)),
]
Angle = Annotated[
    float,
    BeforeValidator(_reader(ANGLE_UNITS, "an angle")),
    Ge(0),
    WithJsonSchema(_schema(ANGLE_UNITS, "an angle", minimum=0)),
]
Momentum = Annotated[
    float,
    BeforeValidator(_reader(MOMENTUM_UNITS, "a momentum")),
    Gt(0),
    WithJsonSchema(_schema(MOMENTUM_UNITS, "a momentum", exclusiveMinimum=0)),
]
Duration = Annotated[
    float,
    BeforeValidator(_reader(TIME_UNITS, "a time")),
    Gt(0),
    WithJsonSchema(_schema(TIME_UNITS, "a time", exclusiveMinimum=0)),
]

# Files hold lists where the house wants fixed-length tuples; only the container is read leniently, not what it
# contains.
LengthPair = Annotated[tuple[Length, Length], Strict(False)]
PositiveLengthPair = Annotated[tuple[PositiveLength, PositiveLength], Strict(False)]
LengthTriple = Annotated[tuple[Length, Length, Length], Strict(False)]
MomentumPair = Annotated[tuple[Momentum, Momentum], Strict(False)]
AnglePair = Annotated[tuple[Angle, Angle], Strict(False)]
