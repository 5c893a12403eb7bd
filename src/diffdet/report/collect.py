"""What a report needs to know, read from a run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffdet.core.errors import FileDamagedError, InputError

CONFIG, METRICS, DETECTORS, RESULT, REPORT = (
    "config.yaml",
    "metrics.jsonl",
    "detectors.jsonl",
    "result.json",
    "report.html",
)


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder.

    Attributes:
        folder: Where it is.
        config: The resolved configuration, plain values; empty where there is none.
        metrics: One entry per phase of an epoch.
        detectors: One entry per epoch, the first before any update.
        result: Content of `result.json`; empty while a run goes on, or after it was killed.
    """

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    detectors: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``"optimise"``, ``"train"`` or ``"image"``."""
        return str(self.result.get("kind") or self.config.get("kind") or "optimise")


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; what a running or killed job has not written yet is empty.

    Args:
        folder: The folder.

    Returns:
        Its content.

    Raises:
        InputError: If the folder does not exist or holds no run.
        FileDamagedError: If a file in it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"RUN: expected the folder of a run, given {str(folder)!r}, which is not a folder")
    if not (folder / CONFIG).is_file() and not (folder / RESULT).is_file():
        raise InputError(
            f"RUN: expected the folder of a run, given {str(folder)!r}, which holds neither {CONFIG} nor {RESULT}"
        )
    return RunRecord(
        folder,
        _read_yaml(folder / CONFIG),
        _read_lines(folder / METRICS),
        _read_lines(folder / DETECTORS),
        _read_json(folder / RESULT),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise FileDamagedError(f"{path}: cannot be read: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(_read_text(path)) or {}
    except yaml.YAMLError as error:
        raise FileDamagedError(
            f"{path}: expected YAML, given text that is not: {' '.join(str(error).split())}"
        ) from error
    return data if isinstance(data, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        data = json.loads(text) if text else {}
    except ValueError as error:
        raise FileDamagedError(f"{path}: expected JSON, given text that is not: {error}") from error
    return data if isinstance(data, dict) else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """One object a line."""
    lines = []
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise FileDamagedError(
                f"{path}, line {number}: expected a JSON object, given text that is not: {error}"
            ) from error
    return lines
