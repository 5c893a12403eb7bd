"""From a file, or the name of a built-in design, to a validated configuration; and back to a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diffdet.core.errors import InputError
from diffdet.runs.config.run import RunConfig
from diffdet.runs.messages import did_you_mean, explain

DEFAULT_DESIGN = "ladle_furnace"
"""The built-in design that runs when no configuration is named."""

_MAX_BYTES = 4 * 2**20
_MAX_NODES = 200_000
_SUFFIXES = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML", ".json": "JSON"}


class _Loader(yaml.SafeLoader):
    """Safe loading that also refuses a key given twice, which plain YAML readers drop silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Block style, but short lists of plain values on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = all(not isinstance(item, (list, dict)) for item in data) and len(str(data)) < 100
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


def _represent_dict(dumper: yaml.SafeDumper, data: dict[Any, Any]) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=not data)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_dict)


@cache
def builtin_names() -> tuple[str, ...]:
    """Names of the built-in designs, the default first."""
    folder = resources.files("diffdet.runs") / "designs"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted(names, key=lambda name: name != DEFAULT_DESIGN))


def builtin_text(name: str) -> str:
    """The file of a built-in design.

    Args:
        name: One of `builtin_names`.

    Returns:
        YAML text.

    Raises:
        InputError: If there is no such design.
    """
    if name not in builtin_names():
        hint = did_you_mean(name, builtin_names())
        raise InputError(
            f"NAME: expected a built-in design ({', '.join(builtin_names())}), given "
            f"{name!r}{'. ' + hint if hint else ''}"
        )
    return (resources.files("diffdet.runs") / "designs" / f"{name}.yaml").read_text(encoding="utf-8")


def read_config_file(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read YAML, TOML or JSON without validating it; nothing in it can run code.

    Args:
        path: The file; its suffix decides the format.
        names: Built-in designs that could have been meant; those of `builtin_names` where None.

    Returns:
        The mapping in the file.

    Raises:
        InputError: If the file is missing, too large, not text, not of its format, or not a mapping.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    if not path.exists():
        names = builtin_names() if names is None else names
        hint = did_you_mean(str(path), names)
        known = f"a configuration file, or a built-in design ({', '.join(names)})"
        raise InputError(
            f"CONFIG: expected {known}, given {str(path)!r}, which does not exist{'. ' + hint if hint else ''}"
        )
    if path.is_dir():
        raise InputError(f"CONFIG: expected a configuration file, given the folder {str(path)!r}")
    if kind is None:
        raise InputError(f"CONFIG: expected a file ending in {', '.join(_SUFFIXES)}, given {str(path)!r}")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(
                f"CONFIG: expected a file of at most {_MAX_BYTES // 2**20} MiB, given {path} with "
                f"{path.stat().st_size} bytes"
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"CONFIG: expected {kind} text in UTF-8, given {str(path)!r}, which is not ({error.reason})"
        ) from error
    except OSError as error:
        raise InputError(f"CONFIG: cannot read {str(path)!r}: {error.strerror}") from error
    return parse_config_text(text, kind, str(path))


def parse_config_text(text: str, kind: str, source: str) -> dict[str, Any]:
    """Parse the text of a configuration.

    Args:
        text: The text.
        kind: ``"YAML"``, ``"TOML"`` or ``"JSON"``.
        source: Where it comes from, for messages.

    Returns:
        The mapping.

    Raises:
        InputError: If it is not of that kind, nested without end, or no mapping.
    """
    try:
        if kind == "TOML":
            data: Any = tomllib.loads(text)
        elif kind == "JSON":
            data = json.loads(text, object_pairs_hook=_refuse_twice)
        else:
            # `_Loader` is a SafeLoader: it builds plain values only.
            data = yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: expected {kind}, given text that is not: {reason}") from error
    if not isinstance(data, dict):
        raise InputError(f"{source}: expected sections such as `volume:` and `passives:`, given {type(data).__name__}")
    _check_size(data, source)
    return data


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _check_size(data: Any, source: str) -> None:
    """Refuse aliases that refer to aliases until the whole would fill the memory, and nesting without end."""
    count, stack = 0, [(data, 0)]
    while stack:
        here, depth = stack.pop()
        count += 1
        if count > _MAX_NODES or depth > 60:
            raise InputError(f"{source}: expected at most {_MAX_NODES} values in at most 60 levels, given more")
        if isinstance(here, dict):
            stack.extend((value, depth + 1) for value in here.values())
        elif isinstance(here, list):
            stack.extend((value, depth + 1) for value in here)


def apply_set(data: dict[str, Any], assignment: str) -> None:
    """Change one value of a configuration, in place.

    Args:
        data: The configuration.
        assignment: ``a.b.2.c=value``; the value is read as YAML, a number picks from a list, ``*`` all of a list.

    Raises:
        InputError: If the text is no assignment, or its path leads nowhere.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().replace("[", ".").replace("]", "").split(".")
    if not equals or not all(keys):
        raise InputError(f"--set: expected KEY.KEY=VALUE, given {assignment!r}")
    try:
        value = yaml.load(text, Loader=_Loader) if text.strip() else None  # noqa: S506
    except yaml.YAMLError as error:
        raise InputError(f"--set {path}: expected a value in YAML, given {text!r}") from error
    _check_size(value, f"--set {path}")
    _assign(data, keys, value, path)


def _assign(here: Any, keys: Sequence[str], value: Any, path: str) -> None:
    """Set the value that the keys lead to, making sections on the way where there are none."""
    key, rest = keys[0], keys[1:]
    places: list[Any]
    if isinstance(here, list):
        places = list(range(len(here))) if key == "*" else [int(key)] if key.lstrip("-").isdigit() else []
        if not places or not all(-len(here) <= place < len(here) for place in places):
            raise InputError(f"--set {path}: expected a number from 0 to {len(here) - 1} or *, given {key!r}")
    elif isinstance(here, dict):
        # Optimisers of one side carry a point in their key.
        if rest and f"{key}.{rest[0]}" in here:
            key, rest = f"{key}.{rest[0]}", rest[1:]
        places = [key]
    else:
        raise InputError(f"--set {path}: expected a path that ends at a value, given {key!r} below {here!r}")
    for place in places:
        if not rest:
            here[place] = value
            continue
        inner = here.get(place) if isinstance(here, dict) else here[place]
        # A bare name stands for a class without arguments.
        if isinstance(inner, str) and rest[0] in ("class", "args"):
            here[place] = {"class": inner}
        elif inner is None:
            here[place] = {}
        _assign(here[place], rest, value, path)


def shrink(data: dict[str, Any]) -> None:
    """Make a configuration tiny, in place: a few seconds that visit every part of the run.

    Args:
        data: A resolved configuration.
    """
    data["smoke"] = True
    schedule, passives, muons = data["schedule"], data["passives"], data["muons"]
    schedule["epochs"] = min(schedule["epochs"], 2)
    schedule["warmup_epochs"] = min(schedule["warmup_epochs"], 1)
    schedule["cost_warmup_epochs"] = min(schedule["cost_warmup_epochs"], 1)
    passives["train"], passives["valid"] = min(passives["train"], 2), min(passives["valid"], 1)
    muons["per_volume"], muons["batch"] = min(muons["per_volume"], 128), None
    per_epoch = passives["train"] * (
        len(passives["layouts"]) or len((passives["generator"] or {}).get("variants", ())) or 1
    )
    if schedule["volumes_per_update"] is not None:
        schedule["volumes_per_update"] = min(schedule["volumes_per_update"], per_epoch)


def validate(data: Mapping[str, Any], source: str) -> RunConfig:
    """Check a configuration.

    Args:
        data: What stands in the file.
        source: Where it comes from, for messages.

    Returns:
        The configuration with every default filled in.

    Raises:
        InputError: If something cannot be used; one message names each field, what was given and what was expected.
    """
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise InputError(explain(error, data, source)) from error
    except RecursionError as error:
        raise InputError(f"{source}: expected values in at most 60 levels, given more") from error


def load_config(
    source: str | Path | None = None,
    *,
    sets: Iterable[str] = (),
    seed: int | None = None,
    device: str | None = None,
    smoke: bool = False,
) -> RunConfig:
    """Read, change and check a configuration.

    Args:
        source: A file, the name of a built-in design, or None for the default design.
        sets: Changes such as ``"schedule.epochs=5"``, in order.
        seed: Replaces the configuration's seed.
        device: Replaces the configuration's device.
        smoke: Whether to make the run tiny.

    Returns:
        The configuration; its `search_path` is absolute.

    Raises:
        InputError: If anything cannot be used.
    """
    name = DEFAULT_DESIGN if source is None else str(source)
    if name in builtin_names() and not Path(name).is_file():
        data, label, folder = parse_config_text(builtin_text(name), "YAML", name), name, None
    else:
        path = Path(name)
        data, label, folder = read_config_file(path), str(path), path.resolve().parent
    for assignment in sets:
        apply_set(data, assignment)
    if seed is not None:
        data["seed"] = seed
    if device is not None:
        data["device"] = device
    config = validate(data, label)
    changes: dict[str, Any] = {}
    if folder is not None:
        changes["search_path"] = absolute_paths(config.search_path, folder) if needs_own_classes(config) else []
        changes["passives"] = _absolute_files(config, folder)
    resolved = as_mapping(config) | changes
    if smoke:
        shrink(resolved)
    return validate(resolved, label)


def absolute_paths(paths: Sequence[str], folder: Path) -> list[str]:
    """Folders to search, relative ones from a folder, which is the last of them."""
    found = [str((folder / path).resolve()) for path in paths]
    return found if str(folder) in found else [*found, str(folder)]


def _absolute_files(config: RunConfig, folder: Path) -> dict[str, Any]:
    passives = as_mapping(config)["passives"]
    for layout in passives["layouts"]:
        if layout["file"] is not None:
            layout["file"] = str((folder / layout["file"]).resolve())
    found: dict[str, Any] = passives
    return found


def needs_own_classes(config: RunConfig) -> bool:
    """Whether a configuration names a user's own class anywhere."""
    specs: list[Any] = [
        config.loss,
        config.muons,
        config.inference.tracks,
        config.inference.volume,
        config.task,
        config.passives.generator,
    ]
    specs += [panel for layer in config.volume.detectors for panel in layer.panels]
    specs += [*config.callbacks, *config.optimiser.values()]
    return any(spec is not None and spec.is_own for spec in specs)


def as_mapping(config: RunConfig, *, fill_z: bool = True) -> dict[str, Any]:
    """A configuration as plain values, every default written out.

    Args:
        config: The configuration.
        fill_z: Whether to write the z of each layer's top, which follows from the thicknesses.

    Returns:
        Lists, mappings, text, numbers: what YAML and JSON hold.
    """
    data: dict[str, Any] = plain(config.model_dump(by_alias=True))
    if fill_z:
        for layer, top in zip(data["volume"]["layers"], config.volume.tops(), strict=True):
            layer["z"] = top
    return data


def plain(value: Any) -> Any:
    """Sections as lists, mappings, text and numbers."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def to_yaml(data: Mapping[str, Any]) -> str:
    """Plain values as YAML text that reads back to the same values."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> dict[str, Any]:
    """The JSON schema of configurations, for editors and other programs."""
    schema = RunConfig.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "diffdet configuration",
        **{k: v for k, v in schema.items() if k != "title"},
    }
