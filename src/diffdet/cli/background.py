"""`diffdet background`: background of a pixel detector, generated on the fly."""

from __future__ import annotations

import importlib
import shlex
import sys

import click

from diffdet.cli.options import output_options, seed_option

COMMANDS: dict[str, str] = {
    "sample": "diffdet.cli.background:sample",
    "evaluate": "diffdet.cli.background:evaluate",
    "train": "diffdet.cli.background:train",
    "convert": "diffdet.cli.background_files:convert",
    "inspect": "diffdet.cli.background_files:inspect",
}
"""Commands of the group, with where each is found."""

GENERATORS = ("clusters", "convnet", "resnet", "ieagan")


class _Group(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from diffdet.core.words import nearest

            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean `{near}`?" if near else ""
            ctx.fail(f"COMMAND: expected one of {', '.join(COMMANDS)}, given {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group)
def background() -> None:
    """Background of a forty-sensor pixel detector: generate it, judge it, train generators, convert files."""


@click.command()
@click.option("--events", "n_events", required=True, type=click.IntRange(1), metavar="N", help="Events to generate.")
@click.option("--out", required=True, metavar="FILE", type=click.Path(), help="File of digits: .root, .h5 or .parquet.")
@click.option(
    "--model", default="clusters", show_default=True, metavar="NAME", help=f"Generator: {', '.join(GENERATORS)}."
)
@click.option("--checkpoint", type=click.Path(), metavar="FILE", help="Weights; those of the package when absent.")
@seed_option
@click.option("--experiment", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the events.")
@click.option("--run", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the events.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="First event.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Events at a time; as many as cores when absent.")
@click.option("--scale", type=click.FloatRange(0), metavar="X", help="Factor on all rates (clusters only).")
@click.option("--missing", multiple=True, metavar="L.L.S", help="A sensor that is absent, such as 2.1.1. May repeat.")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@output_options
def sample(
    n_events: int,
    out: str,
    model: str,
    checkpoint: str | None,
    seed: int | None,
    experiment: int,
    run: int,
    start: int,
    threads: int | None,
    scale: float | None,
    missing: tuple[str, ...],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Generate events and write their digits.

    An event depends on seed, experiment, run and its number only. Without --checkpoint, `clusters` uses the weights of
    the package, which were trained on a simulation that stands in for real background, not on Belle II data.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.background import sample as job

    with Progress("Generating", "events", quiet=quiet) as progress:
        result = job(
            n_events,
            out,
            model=model,
            checkpoint=checkpoint,
            seed=0 if seed is None else seed,
            experiment=experiment,
            run=run,
            start=start,
            threads=threads,
            scale=scale,
            missing=missing,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(
            f"{out}: {result['digits']} digits of {n_events} events, {result['events_per_second']} events/s; "
            f"{model}, trained on {result['trained_on']}"
        )


@click.command()
@click.argument("sample", required=False)
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the report; new or empty.")
@click.option(
    "--against",
    default="standin",
    show_default=True,
    metavar="FILE",
    help="Real events: a file of digits; `standin` for the simulation that stands in for them.",
)
@click.option(
    "--events",
    type=click.IntRange(2),
    default=100,
    show_default=True,
    metavar="N",
    help="Events of the sample to take, and twice as many real ones.",
)
@seed_option
@output_options
def evaluate(
    sample: str | None, out: str, against: str, events: int, seed: int | None, quiet: bool, as_json: bool
) -> None:
    """Compare SAMPLE with real events: figures, noise floor, two baselines, report.

    SAMPLE is a file of digits, or the name of a generator; `clusters` when absent. RUN receives result.json,
    figures.json and report.html.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.background_evaluate import evaluate as job

    with Progress("Comparing", "events", quiet=quiet) as progress:
        result = job(
            sample,
            out,
            against=against,
            events=events,
            seed=0 if seed is None else seed,
            command="diffdet " + shlex.join(sys.argv[1:]),
            progress=progress,
        )
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(f"report: {out}/report.html")


@click.command()
@click.argument("model", default="clusters")
@click.option("--out", required=True, metavar="RUN", type=click.Path(), help="Folder of the run; new or empty.")
@click.option(
    "--data",
    default="standin",
    show_default=True,
    metavar="FILE",
    help="Events to learn from: a file of digits; `standin` for the simulation that stands in for them.",
)
@click.option("--events", type=click.IntRange(2), metavar="N", help="Events of the data to use.")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Epochs to train for (networks only).")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:N, mps or auto (networks only).")
@seed_option
@click.option("--resume", is_flag=True, help="Go on with the run in RUN (networks only).")
@click.option("--smoke", is_flag=True, help="A small size that visits every part in minutes on a CPU.")
@output_options
def train(
    model: str,
    out: str,
    data: str,
    events: int | None,
    epochs: int | None,
    device: str | None,
    seed: int | None,
    resume: bool,
    smoke: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train MODEL, one of clusters, convnet, resnet, ieagan, on events.

    RUN receives the weights, metrics.jsonl, checkpoints/ and result.json.
    """
    from diffdet.cli.options import print_json
    from diffdet.cli.progress import Progress
    from diffdet.runs.background_train import train as job

    with Progress("Training", "steps", quiet=quiet) as progress:
        result, code = job(
            model,
            out,
            data=data,
            events=events,
            epochs=epochs,
            device=device,
            seed=0 if seed is None else seed,
            resume=resume,
            smoke=smoke,
            progress=progress,
        )
    if as_json:
        print_json(result)
    elif not quiet:
        click.echo(f"{result.get('weights', out)}: {result['status']}")
    return code
