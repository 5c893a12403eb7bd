"""The reference of all keys of a configuration, as Markdown, from the JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffdet.runs.config.reading import json_schema
from diffdet.runs.config.run import DEFAULT_CALLBACKS
from diffdet.runs.config.train_reading import train_json_schema
from diffdet.runs.registry import ROLES

_TITLES = {
    "RunConfig": "The whole",
    "VolumeConfig": "volume",
    "DetectorConfig": "volume.layers, kind: detector",
    "PassiveConfig": "volume.layers, kind: passive",
    "PanelConfig": "volume.layers.panels",
    "PassivesConfig": "passives",
    "PassiveGeneratorConfig": "passives.generator",
    "LayoutConfig": "passives.layouts",
    "BlockConfig": "passives.layouts.blocks",
    "MuonsConfig": "muons",
    "InferenceConfig": "inference",
    "TrackInferrerConfig": "inference.tracks",
    "VolumeInferrerConfig": "inference.volume",
    "LossConfig": "loss",
    "OptimiserConfig": "optimiser.FAMILY",
    "CallbackConfig": "callbacks",
    "ScheduleConfig": "schedule",
    "CheckpointsConfig": "checkpoints",
    "TaskConfig": "task",
}
"""Sections in the order of the reference, with the path under which each stands."""

_TRAIN_TITLES = {
    "TrainConfig": "train: the whole",
    "TrainDataConfig": "train: data",
    "ObjectsConfig": "train: data.objects",
    "NetworkConfig": "train: network",
    "HeadConfig": "train: network.head",
    "BodyConfig": "train: network.body",
    "TailConfig": "train: network.tail",
    "NetLossConfig": "train: loss",
    "NetOptimiserConfig": "train: optimiser",
    "NetCallbackConfig": "train: callbacks",
    "MetricConfig": "train: metrics",
    "TrainScheduleConfig": "train: schedule",
    "EvaluationConfig": "train: evaluation",
}
"""Sections of `diffdet train`; `checkpoints` is that of the others."""


def markdown() -> str:
    """The reference: one table for each section.

    Returns:
        Markdown with headings of the third level.
    """
    schema, train_schema = json_schema(), train_json_schema()
    sections = {"RunConfig": schema, "TrainConfig": train_schema, **schema["$defs"], **train_schema["$defs"]}
    titles = _TITLES | _TRAIN_TITLES
    missing = set(sections) ^ set(titles)
    assert not missing, f"sections without a title, or titles without a section: {missing}"
    parts = [_section(title, sections[name], sections) for name, title in titles.items()]
    return "\n".join([*parts, _classes()])


def _section(title: str, section: dict[str, Any], sections: dict[str, Any]) -> str:
    required, defaults = set(section.get("required", ())), {"callbacks": list(DEFAULT_CALLBACKS)}
    description = " ".join(section.get("description", "").split())
    lines = [f"### {title}", "", description, "", "| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in section["properties"].items():
        default = "required" if key in required else _default(field.get("default", defaults.get(key, _UNSET)))
        # A field that says the same as its section has no description of its own.
        inner = sections.get(str(field.get("$ref", "")).rpartition("/")[2], {})
        meaning = " ".join(str(field.get("description", inner.get("description", ""))).split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {' or '.join(_kinds(field))} | {default} | {meaning} |")
    return "\n".join([*lines, ""])


_UNSET = object()


def _default(value: Any) -> str:
    if value is _UNSET:
        return "empty"
    if value is None:
        return "none"
    if value in ({}, [], ""):
        return "empty"
    if isinstance(value, dict):
        return "its defaults"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _kinds(field: dict[str, Any]) -> Iterator[str]:
    """What a value may be, in words."""
    if "anyOf" in field or "oneOf" in field:
        kinds = [kind for option in field.get("anyOf") or field["oneOf"] for kind in _kinds(option)]
        # A quantity is one thing, with or without its unit.
        quantity = next((kind for kind in kinds if kind.startswith(("a ", "an "))), None)
        if quantity is not None:
            limits = next((kind.removeprefix("number") for kind in kinds if kind.startswith("number")), "")
            kinds = [quantity + limits, *(kind for kind in kinds if not kind.startswith("number") and kind != quantity)]
        yield from dict.fromkeys(kinds)
    elif "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        yield f"section `{(_TITLES | _TRAIN_TITLES)[name]}`"
    elif "const" in field:
        yield f"`{field['const']}`"
    elif "enum" in field:
        yield from (f"`{value}`" for value in field["enum"])
    else:
        yield _plain(field)


def _plain(field: dict[str, Any]) -> str:
    kind = field.get("type")
    if kind == "array":
        items = field.get("prefixItems")
        if items:
            return f"list of {len(items)}: {next(iter(_kinds(items[0])))}"
        return f"list of {' or '.join(_kinds(field.get('items', {})))}"
    if kind == "object":
        inner = field.get("additionalProperties")
        return (
            f"names, each with {' or '.join(_kinds(inner))}" if isinstance(inner, dict) and inner else "keys and values"
        )
    if kind == "string" and "with a unit" in field.get("description", ""):
        return str(field["description"]).partition(" with a unit")[0]
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "string": "text",
        "null": "none",
    }
    text = words.get(str(kind), "any value")
    limits = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    bounds = [f"{word} {field[key]:g}" for key, word in limits if key in field and abs(field[key]) < 1e15]
    return f"{text} {', '.join(bounds)}" if bounds else text


def _classes() -> str:
    """Documented names that can stand for a class."""
    lines = ["### Names of classes", "", "| part | names |", "|---|---|"]
    for role, names in ROLES.items():
        listed = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {role} | {listed} |")
    return "\n".join([*lines, ""])
