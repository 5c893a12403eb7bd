"""The report of a comparison of background: figures beside a noise floor and baselines, and what they look like."""

from __future__ import annotations

import json
import shlex
from typing import Any

from diffdet.core.errors import FileDamagedError
from diffdet.report import background_figures
from diffdet.report.collect import RunRecord
from diffdet.report.numbers import MINUS, count, duration, significant
from diffdet.report.optimise import STATUS_WORDS

FIGURES = "figures.json"


def context(record: RunRecord) -> dict[str, Any]:
    """Everything that `background.html.j2` shows.

    Args:
        record: Content of the run folder.

    Returns:
        Values by the names that the template uses.

    Raises:
        FileDamagedError: If the figures of the run cannot be read.
    """
    result = record.result
    status = str(result.get("status", "running"))
    return {
        "title": str(result.get("name", "background")),
        "description": f"Compared with: {result.get('real', '–')}.",
        "status": status,
        "status_words": STATUS_WORDS.get(status, status),
        "reason": result.get("reason", ""),
        "warnings": list(result.get("missed") or []),
        "trained_on": result.get("trained_on"),
        "highlights": _highlights(result),
        "facts": _facts(result),
        "columns": result.get("columns") or {},
        "rows": _rows(result),
        "published": _published(result),
        "published_source": (result.get("published") or {}).get("source", ""),
        "sections": _sections(record),
        "commands": str(result.get("command", "")),
        "versions": list((result.get("versions") or {}).items()),
        "folder": shlex.quote(str(record.folder)),
    }


def _highlights(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    published = (result.get("published") or {}).get("sample") or {}
    figures = (result.get("figures") or {}).get("sample") or {}
    found = []
    if "occupancy_sensor" in published:
        found.append(
            (_percent(published["occupancy_sensor"]), "%", "largest deviation of a sensor from published occupancy")
        )
    if "charge_w1" in published:
        found.append(
            (significant(published["charge_w1"], 2), "ADU", "from the published spectrum of charges (Wasserstein-1)")
        )
    if "auc" in figures:
        found.append((f"{figures['auc']:.3f}", "", "area under the curve of a classifier of clusters; 0.5 cannot tell"))
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", MINUS)


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    events = result.get("events") or {}
    facts = [("events of the sample", count(events.get("sample")))]
    facts.append(("real events", f"{count(events.get('half'))} + {count(events.get('floor'))}"))
    facts += [("seed", str(result.get("seed", "–"))), ("time", duration(result.get("wall_seconds")))]
    if result.get("finished"):
        facts.append(("finished", str(result["finished"]).replace("T", " ")[:16]))
    return facts


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a figure: what it is, its values, whether it reaches its target."""
    figures, targets = result.get("figures") or {}, result.get("targets") or {}
    rows = []
    for name, text in (result.get("metrics") or {}).items():
        values = [significant(figures.get(column, {}).get(name), 3) for column in result.get("columns") or {}]
        target, value = targets.get(name), figures.get("sample", {}).get(name)
        floor = figures.get("floor", {}).get(name, 0.0)
        verdict = ""
        if target is not None and value is not None and (value < target or floor < 0.7 * target):
            verdict = "good" if value < target else "bad"
        rows.append(
            {"text": text, "values": values, "target": "" if target is None else f"{target:g}", "verdict": verdict}
        )
    return rows


def _published(result: dict[str, Any]) -> dict[str, Any]:
    """Published figures: names of the columns, and rows."""
    published = result.get("published") or {}
    networks = published.get("networks") or {}
    columns = [("the sample", published.get("sample") or {}), ("the real events", published.get("real") or {})]
    columns += [(name, figures) for name, figures in networks.items()]
    rows = [
        (text, [significant(figures.get(name), 3) for _, figures in columns])
        for name, text in (published.get("metrics") or {}).items()
    ]
    return {"columns": [name for name, _ in columns], "rows": rows}


def _sections(record: RunRecord) -> list[tuple[str, bool, list[tuple[str, str]]]]:
    """Headings, whether their figures are wide, and the figures."""
    path = record.folder / FIGURES
    if not path.is_file():
        return []
    try:
        drawn = json.loads(path.read_text(encoding="utf-8"))
        return background_figures.sections(drawn)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise FileDamagedError(
            f"{path}: expected figures of a comparison, given a file without them: {error}"
        ) from error
