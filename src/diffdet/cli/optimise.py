"""`diffdet optimise`: the main job."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from diffdet.cli.options import device_option, output_options, seed_option, set_option


@click.command()
@click.argument("config", required=False)
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the run; new or empty.")
@seed_option
@set_option
@device_option
@click.option("--resume", is_flag=True, help="Go on with the run in RUN, bit for bit; start it where there is none.")
@click.option("--smoke", is_flag=True, help="Tiny sizes: a few seconds that visit every part of the run.")
@output_options
def optimise(
    config: str | None,
    out: str,
    seed: int | None,
    sets: tuple[str, ...],
    device: str | None,
    resume: bool,
    smoke: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Improve a detector by gradient descent, evaluate it on held-out volumes, and report.

    CONFIG is a YAML, TOML or JSON file, or a built-in design (`diffdet config list`); without it the ladle furnace
    runs. RUN receives config.yaml, metrics.jsonl, detectors.jsonl, checkpoints/, result.json and report.html.

    SIGINT, SIGTERM and SIGUSR1 finish the step, save and end the run; --resume goes on from there.
    """
    from diffdet.cli.progress import Progress
    from diffdet.runs.optimise import plan

    command = "diffdet " + shlex.join(sys.argv[1:])
    with Progress("Preparing", "epochs", quiet=quiet) as progress:
        job = plan(
            config,
            out,
            sets=sets,
            seed=seed,
            device=device,
            smoke=smoke,
            resume=resume,
            command=command,
            reporter=progress,
        )
        with job:
            outcome = job.run()
    if as_json:
        from diffdet.cli.options import print_json

        print_json(outcome.result)
    elif not quiet:
        click.echo(summary(outcome.result, out))
    if outcome.exit_code:
        click.echo(f"diffdet: {outcome.result.get('status', 'failed')}: {outcome.message}", err=True)
    return outcome.exit_code


def summary(result: dict[str, Any], out: str) -> str:
    """What a run found, in a few lines."""
    from diffdet.cli.options import table

    figures = {key: result[key] for key in ("initial", "final") if result.get(key)} | (result.get("baselines") or {})
    lines = [f"{result.get('name')}: {result.get('status')}, {result.get('reason')}"]
    if figures:
        keys = [key for key in next(iter(figures.values())) if f"{key}_se" in next(iter(figures.values()))]
        rows = [["", *keys]]
        for name, values in figures.items():
            rows.append([name, *(f"{values[key]:.4g} +- {values[f'{key}_se']:.2g}" for key in keys)])
        lines.append(table(rows))
    lines += [f"warning: {note}" for note in result.get("warnings") or []]
    lines.append(f"report: {out}/report.html")
    return "\n".join(lines)
