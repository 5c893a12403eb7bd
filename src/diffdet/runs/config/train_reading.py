"""From a file, or the name of a built-in problem, to a validated configuration of a training; and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffdet.core.errors import InputError
from diffdet.runs.config.reading import absolute_paths, apply_set, parse_config_text, plain, read_config_file
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.messages import explain

__all__ = [
    "as_train_mapping",
    "builtin_train_names",
    "builtin_train_text",
    "is_training",
    "load_train_config",
    "train_json_schema",
]


def _folder() -> Any:
    return resources.files("diffdet.runs") / "designs" / "train"


@cache
def builtin_train_names() -> tuple[str, ...]:
    """Names of the built-in problems."""
    names = [entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml")]
    return tuple(sorted(names))


def builtin_train_text(name: str) -> str:
    """The file of a built-in problem, YAML.

    Args:
        name: One of `builtin_train_names`.
    """
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def is_training(source: str | Path) -> bool:
    """Whether a file, or the name of a built-in problem, configures a training.

    Args:
        source: File or name.

    Raises:
        InputError: If the file cannot be read.
    """
    name = str(source)
    if not Path(name).is_file():
        return name in builtin_train_names()
    return read_config_file(Path(name)).get("kind") == "train"


def _validate(data: Mapping[str, Any], source: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate(dict(data))
    except ValidationError as error:
        raise InputError(explain(error, data, source)) from error
    except RecursionError as error:
        raise InputError(f"{source}: expected values in at most 60 levels, given more") from error


def shrink_training(data: dict[str, Any]) -> None:
    """Make a configuration tiny, in place: a few seconds that visit every part of the run."""
    data["smoke"] = True
    schedule, source, evaluation = data["schedule"], data["data"], data["evaluation"]
    schedule["epochs"] = min(schedule["epochs"], 2)
    schedule["models"] = min(schedule["models"], 2)
    source["folds"] = min(source["folds"], 4)
    source["test_folds"] = 1
    source["events"] = min(source["events"], 800)
    schedule["batch_size"] = min(schedule["batch_size"], 64)
    evaluation["repeats"], evaluation["bootstrap"] = 2, 20


def load_train_config(
    source: str | Path,
    *,
    sets: Iterable[str] = (),
    seed: int | None = None,
    device: str | None = None,
    smoke: bool = False,
) -> TrainConfig:
    """Read, change and check a configuration of a training.

    Args:
        source: A file, or the name of a built-in problem.
        sets: Changes such as ``"schedule.epochs=5"``, in order.
        seed: Replaces the configuration's seed.
        device: Replaces the configuration's device.
        smoke: Whether to make the run tiny.

    Returns:
        The configuration; its paths are absolute.

    Raises:
        InputError: If anything cannot be used.
    """
    name = str(source)
    if name in builtin_train_names() and not Path(name).is_file():
        data, label, folder = parse_config_text(builtin_train_text(name), "YAML", name), name, None
    else:
        path = Path(name)
        data, label, folder = read_config_file(path, builtin_train_names()), str(path), path.resolve().parent
    for assignment in sets:
        apply_set(data, assignment)
    if seed is not None:
        data["seed"] = seed
    if device is not None:
        data["device"] = device
    config = _validate(data, label)
    resolved = as_train_mapping(config)
    if folder is not None:
        resolved["search_path"] = absolute_paths(config.search_path, folder) if config.needs_own_classes else []
        if config.data.file is not None:
            resolved["data"]["file"] = str((folder / config.data.file).resolve())
    if smoke:
        shrink_training(resolved)
    return _validate(resolved, label)


def as_train_mapping(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain values, every default written out."""
    data: dict[str, Any] = plain(config.model_dump(by_alias=True))
    return data


def train_json_schema() -> dict[str, Any]:
    """The JSON schema of configurations of a training, for editors and other programs."""
    schema = TrainConfig.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffdet training configuration",
        **{k: v for k, v in schema.items() if k != "title"},
    }
