"""`diffdet report`: rebuild the report of a run."""

from __future__ import annotations

import click


@click.command()
@click.argument("run", type=click.Path())
@click.option("--quiet", "-q", is_flag=True, help="Do not print the path of the report.")
def report(run: str, quiet: bool) -> None:
    """Rebuild report.html from what stands in the folder RUN, of a run that has ended or is going on."""
    from diffdet.report import write_report

    path = write_report(run)
    if not quiet:
        click.echo(str(path))
