"""`diffdet train`: networks from tables and objects of events."""

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
@click.option("--overwrite", is_flag=True, help="Remove the training that is in RUN first.")
@click.option("--smoke", is_flag=True, help="Tiny sizes: a few seconds that visit every part of the run.")
@output_options
def train(
    config: str | None,
    out: str,
    seed: int | None,
    sets: tuple[str, ...],
    device: str | None,
    resume: bool,
    overwrite: bool,
    smoke: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train a network on events, evaluate it on events that it has not seen, and report.

    CONFIG is a YAML, TOML or JSON file, or a built-in problem: signal_background, mass_regression. RUN receives
    config.yaml, metrics.jsonl, checkpoints/, ensemble/, predictions.npz, result.json and report.html.

    Under `torchrun`, processes share every batch. SIGINT, SIGTERM and SIGUSR1 finish the batch, save and end the run;
    --resume goes on from there.
    """
    import os

    from diffdet.cli.progress import Progress
    from diffdet.runs.train import plan_training

    command = "diffdet " + shlex.join(sys.argv[1:])
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    with Progress("Preparing", "epochs", quiet=quiet) as progress:
        job = plan_training(
            config,
            out,
            sets=sets,
            seed=seed,
            device=device,
            smoke=smoke,
            resume=resume,
            overwrite=overwrite,
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

    lines = [f"{result.get('name')}: {result.get('status')}, {result.get('reason')}"]
    figures = {"network": result.get("final"), **(result.get("baselines") or {})}
    found: list[tuple[str, dict[str, Any]]] = [(name, values) for name, values in figures.items() if values]
    if found:
        keys = [key for key in found[0][1] if f"{key}_se" in found[0][1]]
        rows = [["", *keys]]
        for name, values in found:
            rows.append([name, *(f"{values[key]:.4g} +- {values[f'{key}_se']:.2g}" for key in keys)])
        lines.append(table(rows))
    lines += [f"warning: {note}" for note in result.get("warnings") or []]
    lines.append(f"report: {out}/report.html")
    return "\n".join(lines)
