"""Numbers as people read them: values with their standard errors, times, counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "−"


def common_power(values: Sequence[float | None]) -> int:
    """The power of ten, a multiple of three, that brings the smallest of some values to between 0.1 and 100.

    Args:
        values: Values of one column; None and zero do not count.

    Returns:
        The exponent; 0 where values read well as they are.
    """
    sizes = [abs(value) for value in values if value is not None and value != 0 and math.isfinite(value)]
    if not sizes:
        return 0
    return 3 * math.floor((math.log10(min(sizes)) + 1) / 3)


def power_label(power: int) -> str:
    """A power of ten as it stands before a unit, for example ``10⁻³``; empty for 0."""
    return f"10{str(power).translate(_SUPERSCRIPTS)}" if power else ""


def decimals_for(errors: Sequence[float | None], power: int, *, most: int = 4) -> int:
    """Decimals that show two digits of the smallest standard error of a column, once divided by the power of ten."""
    sizes = [error / 10**power for error in errors if error is not None and error > 0 and math.isfinite(error)]
    if not sizes:
        return 2
    return min(most, max(0, 1 - math.floor(math.log10(min(sizes)))))


def fixed(value: float | None, decimals: int, power: int = 0) -> str:
    """A number with fixed decimals, with a real minus sign; a dash for what is not there."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value / 10**power:.{decimals}f}".replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """A number with some significant digits, as a decimal where that reads well and with a power of ten elsewhere."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -3 <= exponent < 6:
        return f"{value:,.{max(0, digits - 1 - exponent)}f}".replace(",", "\u202f").replace("-", MINUS)
    mantissa = value / 10.0**exponent
    return f"{mantissa:.{digits - 1}f} × {power_label(exponent)}".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """A time as hours, minutes and seconds."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def count(value: float | None) -> str:
    """A whole number in groups of three digits."""
    return "–" if value is None else f"{round(value):,}".replace(",", "\u202f")
