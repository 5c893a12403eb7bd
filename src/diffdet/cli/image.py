"""`diffdet image`: an image of radiation lengths from recorded hits."""

from __future__ import annotations

import click

from diffdet.cli.options import Quantity, device_option, output_options, set_option


@click.command()
@click.argument("hits", type=click.Path())
@click.option(
    "--config",
    required=True,
    metavar="CONFIG",
    help="Design in which the hits were recorded: a file, or a built-in one.",
)
@click.option(
    "--method", default="poca", show_default=True, metavar="METHOD", help="How the image is made: poca or mlem."
)
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the image; new or empty.")
@click.option(
    "--voxel",
    type=Quantity("a length", "LENGTH_UNITS"),
    metavar="M",
    help="Edge of the image's voxels, m or with a unit; the configuration's when absent.",
)
@click.option(
    "--columns", type=click.Path(), metavar="MAP", help="YAML that maps our columns to those of HITS, with units."
)
@click.option(
    "--momentum",
    type=Quantity("a momentum", "MOMENTUM_UNITS"),
    metavar="GEV",
    help="Momentum of the muons, GeV or with a unit, where HITS has none.",
)
@click.option("--save", multiple=True, metavar="KIND", help="Also save the image as: vtk. May be repeated.")
@set_option
@device_option
@click.option("--overwrite", is_flag=True, help="Replace an image that RUN holds.")
@output_options
def image(
    hits: str,
    config: str,
    method: str,
    out: str,
    voxel: float | None,
    columns: str | None,
    momentum: float | None,
    save: tuple[str, ...],
    sets: tuple[str, ...],
    device: str | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn HITS, simulated or recorded by somebody else, into an image of radiation lengths.

    RUN receives image.h5, pictures of slices, result.json and report.html.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.config import load_config
    from diffdet.runs.image import image as job

    found = load_config(config, sets=sets, device=device)
    with Progress("Imaging", "muons", quiet=quiet) as progress:
        result = job(
            hits,
            found,
            method,
            out,
            voxel=voxel,
            columns=columns,
            save=save,
            momentum=momentum,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(f"report: {out}/report.html")
