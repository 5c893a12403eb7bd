"""Write the tables of docs/studies.md from the records of the studies in benchmarks/results/.

usage: python docs/figures/studies.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. The records come from
`python benchmarks/ladle_furnace_study.py` and `python benchmarks/small_problems_study.py`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "studies.md"

sys.path.append(str(ROOT / "benchmarks"))

import ladle_furnace_study as furnace  # noqa: E402
import small_problems_study as small  # noqa: E402


def records(benchmark: str, **wanted: Any) -> list[dict[str, Any]]:
    """Full-size records of a study by seed, the latest of each."""
    latest: dict[int, dict[str, Any]] = {}
    for line in (RESULTS / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if not record["quick"] and all(record[key] == value for key, value in wanted.items()):
            latest[record["seed"]] = record
    return [latest[seed] for seed in sorted(latest)]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head)]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in [*lines, ["---"] + ["---:"] * (len(lines[0]) - 1), *map(list, rows)]
    )


def spread(values: list[float], scale: float, digits: int) -> str:
    """Mean and standard deviation."""
    return f"{scale * mean(values):.{digits}f} ± {scale * stdev(values):.{digits}f}"


def furnace_table(column: str, scale: float, digits: int) -> str:
    """One figure of every detector: published, the original run again, ours."""
    runs = {name: records("ladle_furnace_study", inferrer=name) for name in furnace.INFERRERS}

    def known(figures: dict[str, dict[str, float]], row: str) -> str:
        value = figures.get(row, {}).get(column)
        return "" if value is None else f"{scale * value:.{digits}f}"

    return table(
        ["detector", "published", "original, run again", *(f"diffdet, `{name}`" for name in runs)],
        (
            [
                row,
                known(furnace.PUBLISHED, row),
                known(furnace.RE_RUN, row),
                *(spread([run["rows"][row][column] for run in found], scale, digits) for found in runs.values()),
            ]
            for row in furnace.ROWS
        ),
    )


def small_table(problem: str) -> str:
    """Scores of every seed."""

    def cell(row: dict[str, float]) -> str:
        return f"{row['score']:.3f} ± {row['score_se']:.3f}"

    return table(
        ["seed", *small.DETECTORS, "optimised − initial", "in standard errors", "order error, initial → optimised"],
        (
            [
                str(run["seed"]),
                *(cell(run["rows"][name]) for name in small.DETECTORS),
                f"{run['gain']:.3f} ± {run['gain_se']:.3f}",
                f"{run['standard_errors']:.1f}",
                f"{run['rows']['initial']['order_error']:.3f} → {run['rows']['optimised']['order_error']:.3f}",
            ]
            for run in records("small_problems_study", problem=problem)
        ),
    )


def checks_table() -> str:
    """What the walls' correlations are with other walls, and without the rim."""
    runs = records("small_problems_study", problem="small_walls")
    kinds = {
        "score": "all voxels",
        "inner": "without the outermost voxels",
        "others": "with the walls of other volumes",
    }
    return table(
        ["correlation", *small.DETECTORS],
        (
            [label, *(spread([run["rows"][name][key] for run in runs], 1, 3) for name in small.DETECTORS)]
            for key, label in kinds.items()
        ),
    )


TABLES: dict[str, Callable[[], str]] = {
    "furnace corrected squared error": lambda: furnace_table("mse_m2", 1e3, 3),
    "furnace corrected absolute bias": lambda: furnace_table("abs_bias_m", 1e2, 2),
    "furnace raw squared error": lambda: furnace_table("raw_mse_m2", 1e3, 3),
    "furnace raw absolute bias": lambda: furnace_table("raw_abs_bias_m", 1e2, 2),
    "small walls": lambda: small_table("small_walls"),
    "small walls checks": checks_table,
    "lorry": lambda: small_table("u_lorry"),
}


def renewed(text: str) -> str:
    """The page with all tables as the records have them."""
    return re.sub(
        r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
