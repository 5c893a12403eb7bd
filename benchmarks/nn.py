"""Speed and memory of the heads of the nn wing, side by side with the published package `lumin` in one run.

Measured are

* forward and backward of every head, in training, on batches of physical four-momenta; both sides are built by the same
  lines (`_nn_heads.py`). The peer's `InteractionNet` sums over a ring of V pairs, ours over all V (V - 1);
* time to import the blocks behind torch, and number of modules loaded then;
* memory that a step adds to a process that has its head already, and
* `predict` of a whole model on 1,000,000 rows, beside its bare network on the same batches (our side only).

Both sides run in processes of their own, in turn. Times are medians by the clock. Every run is appended to
`results/nn.jsonl`.

    python benchmarks/nn.py            both sides, one thread
    python benchmarks/nn.py --quick    few runs, 100,000 rows
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _common import (
    DEFAULT_CACHE,
    HERE,
    BenchmarkError,
    Worker,
    append_record,
    ensure_environment,
    human_time,
    machine,
    summary,
)
from _nn_heads import HEADS

PEER_FIRST = ("torch==2.13.0", "numpy<2")
PEER_THEN = ("lumin==0.9.1",)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few runs, 100,000 rows")
    parser.add_argument("--sides", choices=("both", "ours", "peer"), default="both")
    parser.add_argument("--threads", type=int, default=1, help="0 = torch's default (default %(default)s)")
    parser.add_argument("--runs", type=int, help="counted runs a turn (at least 5 for the record)")
    parser.add_argument("--turns", type=int, help="how often the sides take turns")
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS), metavar="HEAD")
    parser.add_argument("--no-predict", action="store_true", help="leave out the whole model")
    parser.add_argument("--peer-venv", type=Path, default=DEFAULT_CACHE / "lumin", help="made when absent")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="3.10 or 3.11, to make it with")
    parser.add_argument("--pip-option", action="append", default=[], help="for pip when making it, repeatable")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "nn.jsonl")
    options = parser.parse_args(arguments)
    options.runs = options.runs or (2 if options.quick else 5)
    options.turns = options.turns or (1 if options.quick else 3)
    options.rows = 100_000 if options.quick else 1_000_000
    return options


def compare(workers: dict[str, Worker], label: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn on one head."""
    rows: dict[str, Any] = {}
    times: dict[str, dict[str, list[float]]] = {side: {} for side in workers}
    for _ in range(options.turns):
        for side, worker in workers.items():
            answer = worker("head", label=label, runs=options.runs)
            for name in ("forward", "backward"):
                times[side].setdefault(name, []).extend(answer[name])
            steps = [sum(pair) for pair in zip(answer["forward"], answer["backward"], strict=True)]
            times[side].setdefault("step", []).extend(steps)
            row = rows.setdefault(side, {"events": answer["events"], "building": answer["building"], "extra_mb": 0.0})
            row["extra_mb"] = max(row["extra_mb"], answer["extra_mb"])
    for side, by_name in times.items():
        rows[side] |= {name: summary(values) for name, values in by_name.items()}
    if len(rows) == 2:
        rows["ratio"] = rows["peer"]["step"]["median"] / rows["ours"]["step"]["median"]
    return rows


def print_row(label: str, rows: dict[str, Any]) -> None:
    cells = ""
    for side in ("ours", "peer"):
        if row := rows.get(side):
            forward, backward = (human_time(row[name]["median"]) for name in ("forward", "backward"))
            cells += f"{forward:>10} +{backward:>8}{row['extra_mb']:>7.0f} MB"
        else:
            cells += " " * 30
    ratio = f"{rows['ratio']:>8.1f}x" if "ratio" in rows else ""
    print(f"  {label:36}{cells}{ratio}", flush=True)


def print_predict(result: dict[str, Any], rows: int) -> None:
    model, network = (result[name]["median"] for name in ("predict", "network"))
    print(
        f"  predict, {rows:,} rows in batches of {result['batch']:,}: {human_time(model)}, bare network "
        f"{human_time(network)}, share of the network {network / model:.0%}, peak {result['peak_mb']:.0f} MB"
    )


def measure(options: argparse.Namespace, peer_python: Path | None) -> dict[str, Any]:
    """Everything."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        if peer_python:
            script = HERE / "peers" / "lumin_heads.py"
            workers["peer"] = stack.enter_context(Worker(peer_python, script, threads=options.threads))
        if options.sides != "peer":
            script = HERE / "_nn_worker.py"
            workers["ours"] = stack.enter_context(Worker(Path(sys.executable), script, threads=options.threads))
        about = {side: worker("hello") for side, worker in workers.items()}
        for side, facts in about.items():
            seconds, modules = facts["import_seconds"], facts["modules"]
            print(f"  {side}: import behind torch {human_time(seconds)}, {modules} modules, {facts['idle_mb']:.0f} MB")
        print(f"  {'forward + backward, added memory':36}{'ours':>30}{'lumin':>30}{'ratio':>9}")
        result: dict[str, Any] = {"threads": options.threads, "about": about, "heads": {}}
        for label in options.heads:
            result["heads"][label] = compare(workers, label, options)
            print_row(label, result["heads"][label])
        if "ours" in workers and not options.no_predict:
            answer = workers["ours"]("predict", rows=options.rows, bs=10_000)
            times = {name: summary(answer[name]) for name in ("predict", "network")}
            result["predict"] = times | {"rows": options.rows, "batch": 10_000, "peak_mb": answer["peak_mb"]}
            print_predict(result["predict"], options.rows)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    record: dict[str, Any] = {"benchmark": "nn", "quick": options.quick, "machine": machine()}
    try:
        peer_python = None
        if options.sides != "ours":
            peer_python = ensure_environment(
                options.peer_venv,
                python=options.peer_python,
                first=PEER_FIRST,
                then=PEER_THEN,
                pip_options=options.pip_option,
            )
        record["results"] = measure(options, peer_python)
    except BenchmarkError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    append_record(options.results, record)
    print(f"\nappended to {options.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
