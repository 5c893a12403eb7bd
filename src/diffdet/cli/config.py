"""`diffdet config`: built-in designs, the schema, and validation without running."""

from __future__ import annotations

import json
from typing import Any

import click

from diffdet.cli.options import device_option, seed_option, set_option


@click.group()
def config() -> None:
    """List, show, describe and check configurations."""


@config.command("list")
def list_() -> None:
    """List the built-in designs."""
    from diffdet.runs.config import DEFAULT_DESIGN, builtin_names, load_config
    from diffdet.runs.config.train_reading import builtin_train_names, load_train_config

    rows = [
        [name, load_config(name).description + (" (default)" if name == DEFAULT_DESIGN else "")]
        for name in builtin_names()
    ]
    rows += [[name, f"train: {load_train_config(name).description}"] for name in builtin_train_names()]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(click.wrap_text(f"{name.ljust(width)}   {text}", 100, "", " " * (width + 3)))


@config.command()
@click.argument("name")
@click.option("--resolved", is_flag=True, help="With every default written out.")
@set_option
def show(name: str, resolved: bool, sets: tuple[str, ...]) -> None:
    """Print a built-in design, to be saved and changed."""
    from diffdet.runs.config import as_mapping, builtin_text, load_config, to_yaml
    from diffdet.runs.config.train_reading import (
        as_train_mapping,
        builtin_train_names,
        builtin_train_text,
        load_train_config,
    )

    if name in builtin_train_names():
        changed = resolved or sets
        text = to_yaml(as_train_mapping(load_train_config(name, sets=sets))) if changed else builtin_train_text(name)
        click.echo(text, nl=False)
        return
    text = builtin_text(name)
    click.echo(to_yaml(as_mapping(load_config(name, sets=sets))) if resolved or sets else text, nl=False)


@config.command()
@click.option("--train", is_flag=True, help="Of configurations of `diffdet train`.")
def schema(train: bool) -> None:
    """Print the JSON schema of configurations, for editors and other programs."""
    from diffdet.runs.config import json_schema
    from diffdet.runs.config.train_reading import train_json_schema

    click.echo(json.dumps(train_json_schema() if train else json_schema(), indent=2, ensure_ascii=False))


@config.command()
@click.argument("file", required=False)
@seed_option
@set_option
@device_option
@click.option("--quick", is_flag=True, help="Check the file only; do not load classes nor build the detector.")
def check(file: str | None, seed: int | None, sets: tuple[str, ...], device: str | None, quick: bool) -> None:
    """Check a configuration, or a built-in design, without running it.

    Builds everything that a run would build, so that what passes here starts.
    """
    from diffdet.runs.config import load_config
    from diffdet.runs.config.train_reading import is_training

    if file is not None and is_training(file):
        _check_training(file, {"sets": sets, "seed": seed, "device": device}, quick=quick)
        return
    found = load_config(file, sets=sets, seed=seed, device=device)
    if not quick:
        from diffdet.runs.build import build

        build(found)
    n_panels = sum(len(layer.panels) for layer in found.volume.detectors)
    shape = " x ".join(map(str, found.volume.voxel_shape))
    click.echo(
        f"{file or found.name}: valid. {n_panels} panels, {shape} voxels (z, x, y), {found.schedule.total_epochs} "
        f"epochs, task {found.task.class_}"
    )


def _check_training(file: str, changes: dict[str, Any], *, quick: bool) -> None:
    """Check the configuration of a training."""
    from diffdet.runs.config.train_reading import load_train_config

    found = load_train_config(file, **changes)
    told = f"{found.network.objective}, {found.schedule.models} models of {found.schedule.epochs} epochs"
    if not quick:
        from diffdet.nn.models.model import Model
        from diffdet.runs.train_build import build_training

        built = build_training(found)
        n_parameters = Model(built.builder, seed=found.seed).get_param_count(False)
        told += f", {built.data.folds.get_data_count():,} events, {n_parameters:,} parameters"
    click.echo(f"{file}: valid. {told}")
