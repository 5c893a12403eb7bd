"""`diffdet check`: whether the gradients of a design are right."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from diffdet.cli.options import device_option, output_options, seed_option, set_option


@click.command()
@click.argument("config", required=False)
@click.option(
    "--updates",
    type=click.IntRange(min=4),
    default=16,
    show_default=True,
    metavar="N",
    help="Independent updates over which bias and noise are measured; an even number.",
)
@click.option(
    "--muons", type=click.IntRange(min=1), metavar="N", help="Muons per volume; the configuration's when absent."
)
@click.option(
    "--tolerance",
    type=float,
    default=1e-3,
    show_default=True,
    metavar="R",
    help="Largest relative error of a parameter with which its gradient counts as exact.",
)
@click.option("--out", metavar="RUN", type=click.Path(), help="Folder for result.json; new or empty.")
@seed_option
@set_option
@device_option
@output_options
def check(
    config: str | None,
    updates: int,
    muons: int | None,
    tolerance: float,
    out: str | None,
    seed: int | None,
    sets: tuple[str, ...],
    device: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compare the gradients of a design with finite differences, measure their noise, and advise.

    CONFIG is a configuration file or a built-in design; without it the ladle furnace is checked. Everything is computed
    in float64, with the same random numbers on both sides of each difference; nothing is optimised.

    Exit code 0: the gradients of all families that move agree. 1: they do not, or are not finite. 2: bad input.
    """
    from diffdet.cli.progress import Progress
    from diffdet.runs.check import check as job
    from diffdet.runs.config import load_config

    found = load_config(config, sets=sets, seed=seed, device=device)
    with Progress("Checking", "evaluations", quiet=quiet) as progress:
        result = job(
            found,
            updates=updates,
            muons=muons,
            tolerance=tolerance,
            out=out,
            command="diffdet " + shlex.join(sys.argv[1:]),
            progress=progress,
        )
    if as_json:
        from diffdet.cli.options import print_json

        print_json(result)
    elif not quiet:
        click.echo(summary(result))
    return 0 if result["agree"] else 1


def summary(result: dict[str, Any]) -> str:
    """What was found, in a table and a few lines."""
    from diffdet.cli.options import table

    heads = ["family", "verdict", "cosine", "worst error", "bias", "variance", "signal/noise"]
    rows = [heads]
    for name, found in result["families"].items():
        bias = found["bias"]
        error = found["bias_se"]
        rows.append(
            [
                name if found["moves"] else f"{name} (fixed)",
                found["verdict"],
                _number(found["cosine"], ".6f"),
                _number(found["worst_relative_error"], ".1e"),
                "-" if bias is None or error is None else f"{100 * bias:+.1f} +- {100 * error:.1f} %",
                _number(found["variance"], ".3g"),
                _number(found["signal_to_noise"], ".2f"),
            ]
        )
    lines = [
        f"{result['name']}: gradients of {result['updates']} updates of {result['volumes_per_update']} volumes, "
        f"{result['muons_per_volume']} muons each",
        table(rows),
        *(f"  {line}" for line in result["advice"]),
        f"{'agree' if result['agree'] else 'disagree'}: {result['reason']}",
    ]
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
