"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def seed_option(function: Function) -> Function:
    """`--seed`."""
    text = "Seed of all random streams; replaces the configuration's."
    return click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", help=text)(function)


def set_option(function: Function) -> Function:
    """`--set`, any number of times."""
    text = "Change a value of the configuration; a number picks from a list, * all of it. May be repeated."
    return click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help=text)(function)


def device_option(function: Function) -> Function:
    """`--device`."""
    text = "cpu, cuda, cuda:N, mps or auto; replaces the configuration's."
    return click.option("--device", metavar="D", help=text)(function)


class Quantity(click.ParamType):
    """A positive number in a base unit, or with a unit of its own: ``0.05`` or ``"5 cm"``.

    Args:
        what: Name of the quantity, for messages.
        units: Name of the table of units in `diffdet.runs.config.quantities`.
    """

    name = "quantity"

    def __init__(self, what: str, units: str) -> None:
        self._what, self._units = what, units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number in the base unit."""
        from pydantic_core import PydanticCustomError

        from diffdet.runs.config import quantities

        units: dict[str, float] = getattr(quantities, self._units)
        base = next(iter(units))
        try:
            number = quantities.parse_quantity(value, units, self._what)
        except PydanticCustomError:
            number = None
        if not isinstance(number, float) or not 0 < number < float("inf"):
            self.fail(
                f"expected {self._what} above 0, in {base} or with a unit ({', '.join(units)}), given {value!r}",
                param,
                ctx,
            )
        return number


def output_options(function: Function) -> Function:
    """`--quiet` and `--json`."""
    function = click.option(
        "--json", "as_json", is_flag=True, help="Print the content of result.json, and nothing else."
    )(function)
    return click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")(function)


def print_json(data: Mapping[str, Any]) -> None:
    """Print a result as the file holds it."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def table(rows: list[list[str]], *, indent: int = 2) -> str:
    """Rows of text in aligned columns, the first column to the left and the others to the right.

    Args:
        rows: Cells; all rows have the same length.
        indent: Spaces before each row.

    Returns:
        The lines, joined.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" " * indent + "   ".join(cells).rstrip())
    return "\n".join(lines)
