"""`diffdet background convert` and `inspect`: files of digits."""

from __future__ import annotations

from typing import Any

import click

from diffdet.cli.options import output_options


@click.command()
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--kind",
    type=click.Choice(["ttree", "rntuple", "parquet", "hdf5", "png"]),
    help="What to write; by the suffix of OUT when absent: .root (TTree), .parquet, .h5, or a folder of pictures.",
)
@click.option("--array", metavar="NAME", help="Array of digits, where an overlay file has several.")
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
@output_options
def convert(
    source: str, out: str, kind: str | None, array: str | None, overwrite: bool, quiet: bool, as_json: bool
) -> None:
    """Write the events of SOURCE to OUT in another kind of file.

    SOURCE is an overlay file of Belle II's software, a file of digits, or a folder of pictures. Files are streamed.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.background_convert import convert as job

    with Progress("Converting", "events", quiet=quiet) as progress:
        result = job(source, out, kind=kind, array=array, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(f"{out}: {result['digits']} digits of {result['events']} events{_mended(result['mended'])}")


@click.command()
@click.argument("source", type=click.Path())
@click.option("--array", metavar="NAME", help="Array of digits, where an overlay file has several.")
@click.option("--events", type=click.IntRange(1), metavar="N", help="Events to look at; all when absent.")
@output_options
def inspect(source: str, array: str | None, events: int | None, quiet: bool, as_json: bool) -> None:
    """Say what SOURCE holds: events, digits, occupancy and charge, faults, and where it comes from."""
    from diffdet.cli.options import print_json, table
    from diffdet.runs.background_convert import inspect as job

    result = job(source, array=array, limit=events)
    if as_json:
        print_json(result)
        return
    if quiet:
        return
    charge = result["charge_adu"]
    click.echo(f"{source}: {result['file_kind']}")
    click.echo(
        f"  {result['digits']} digits of {result['events']} events{_mended(result['mended'])}; "
        f"occupancy {result['occupancy_percent']} %, mean charge {charge['mean']} ADU "
        f"({charge['least']} to {charge['most']})"
    )
    rows = [["layer", "occupancy %", "mean charge ADU", "variance / mean"]]
    keys = ("layer", "occupancy_percent", "mean_charge_adu", "variance_over_mean")
    rows += [[str(layer[key]) for key in keys] for layer in result["layers"]]
    click.echo(table(rows))
    for name in ("source", "generator", "trained_on", "weights_sha256", "seed", "experiment", "run"):
        if result["metadata"].get(name) is not None:
            click.echo(f"  {name}: {result['metadata'][name]}")


def _mended(counts: dict[str, Any]) -> str:
    """Faults that were mended, in words."""
    words = ", ".join(f"{name.replace('_', ' ')}: {number}" for name, number in counts.items())
    return f" ({words})" if words else ""
