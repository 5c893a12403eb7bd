"""`diffdet simulate`: hits of cosmic muons in a design."""

from __future__ import annotations

import click

from diffdet.cli.options import device_option, output_options, seed_option, set_option


@click.command()
@click.argument("config", required=False)
@click.option("--muons", "n_muons", required=True, type=click.IntRange(1), metavar="N", help="Muons to send through.")
@click.option(
    "--out",
    required=True,
    metavar="HITS",
    type=click.Path(),
    help="File of hits: .parquet, .h5, .root, .csv or .npz.",
)
@click.option("--truth", is_flag=True, help="Also write the true positions, as true_x and true_y.")
@seed_option
@set_option
@device_option
@click.option("--overwrite", is_flag=True, help="Replace HITS where it exists.")
@output_options
def simulate(
    config: str | None,
    n_muons: int,
    out: str,
    truth: bool,
    seed: int | None,
    sets: tuple[str, ...],
    device: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Send muons through the detector and the first passive volume of a design, and write the hits.

    CONFIG is a YAML, TOML or JSON file, or a built-in design; without it the ladle furnace.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.config import load_config
    from diffdet.runs.simulate import simulate as job

    found = load_config(config, sets=sets, seed=seed, device=device)
    with Progress("Simulating", "muons", quiet=quiet) as progress:
        result = job(found, n_muons, out, truth=truth, seed=found.seed, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(f"{out}: {result.get('hits', '?')} hits of {n_muons} muons")
