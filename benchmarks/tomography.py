"""Speed and memory of the tomography wing, side by side with the published package `tomopt` in one run.

The scene is the published package's own speed test: 1 m x 1 m, six passive layers of 0.1 m voxels, four panels above
and four below, beryllium with a block of lead, muons of 5 GeV. Measured are

* `predict`: the radiation lengths of the 600 voxels from 10,000 resampled muons (the peer in batches of 250, as its
  speed test does it), and
* `step`: one optimisation step with 1,000 muons: layout, muons, inference, loss with a target budget, backward, update;
* then how both grow on our side up to 1,000,000 muons, with the peak memory of every size.

Both sides run in processes of their own, in turn. Times are medians by the clock; the number of counted runs stands
beside them. A machine that is busy with other things slows short runs and long ones differently: the ratio of processor
times, printed too, feels it less. Every run is appended to `results/tomography.jsonl`.

    python benchmarks/tomography.py            both sides, one thread and the default number of threads
    python benchmarks/tomography.py --quick    one thread, few runs, up to 100,000 muons
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
    scaling_exponent,
    summary,
)

PREDICT_MUONS = 10_000
STEP_MUONS = 1_000
PEER_BATCH = 250
PEER_FIRST = ("torch==2.13.0", "numpy<2")
PEER_THEN = ("tomopt==0.1.0", "mypy_extensions")
SCALING_SIZES = (1_000, 10_000, 100_000, 1_000_000)
# The exponent is fitted where arithmetic dominates; below, fixed costs of a call flatten the curve.
EXPONENT_FROM = 10_000


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one thread, fewer runs, scaling to 100,000 muons")
    parser.add_argument("--sides", choices=("both", "ours", "peer"), default="both")
    parser.add_argument("--threads", type=int, nargs="+", help="thread numbers to measure, 0 = torch's default")
    parser.add_argument("--batch", type=int, default=10_000, help="muons a batch on our side (default %(default)s)")
    parser.add_argument("--runs", type=int, help="counted runs on our side (at least 5 for the record)")
    parser.add_argument("--peer-predicts", type=int, help="counted predictions of the peer, 13 to 20 s each")
    parser.add_argument("--peer-steps", type=int, help="counted steps of the peer, about 2 s each")
    parser.add_argument("--no-scaling", action="store_true", help="leave out the growth with the number of muons")
    parser.add_argument("--peer-venv", type=Path, default=DEFAULT_CACHE / "tomopt", help="made when absent")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="3.10 or 3.11, to make it with")
    parser.add_argument("--pip-option", action="append", default=[], help="for pip when making it, repeatable")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "tomography.jsonl")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.threads = options.threads or ([1] if quick else [1, 0])
    options.runs = options.runs or (5 if quick else 15)
    options.peer_predicts = options.peer_predicts or (1 if quick else 3)
    options.peer_steps = options.peer_steps or (2 if quick else 5)
    options.sizes = [size for size in SCALING_SIZES if not quick or size <= 100_000]
    return options


def shares(total: int, parts: int) -> list[int]:
    """`total` runs spread over `parts` turns, none empty unless there are too few."""
    return [total // parts + (turn < total % parts) for turn in range(parts)]


def compare(ours: Worker | None, peer: Worker | None, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn: a peer's run, then our share of runs, and so on."""
    seconds: dict[str, dict[str, list[float]]] = {"predict": {}, "step": {}}
    cpu_seconds: dict[str, dict[str, list[float]]] = {"predict": {}, "step": {}}
    peaks: dict[str, dict[str, float]] = {"predict": {}, "step": {}}
    contrast: dict[str, list[float]] = {}

    def run(side: str, worker: Worker, job: str, **arguments: int) -> None:
        answer = worker(job, **arguments)
        seconds[job].setdefault(side, []).extend(answer["seconds"])
        cpu_seconds[job].setdefault(side, []).extend(answer["cpu_seconds"])
        peaks[job][side] = max(peaks[job].get(side, 0.0), answer["peak_mb"])
        if "separation" in answer:
            contrast.setdefault(side, []).append(answer["separation"])

    if ours:
        ours("predict", muons=PREDICT_MUONS, batch=options.batch)
        ours("step", muons=STEP_MUONS, batch=STEP_MUONS, steps=5)
    if peer:
        peer("predict", muons=PEER_BATCH, batch=PEER_BATCH)
        peer("step", muons=PEER_BATCH, batch=PEER_BATCH, steps=1)
    for our_share in shares(options.runs, options.peer_predicts):
        if peer:
            run("peer", peer, "predict", muons=PREDICT_MUONS, batch=PEER_BATCH)
        if ours:
            for _ in range(our_share):
                run("ours", ours, "predict", muons=PREDICT_MUONS, batch=options.batch)
    for our_share in shares(4 * options.runs, options.peer_steps):
        if peer:
            run("peer", peer, "step", muons=STEP_MUONS, batch=PEER_BATCH, steps=1)
        if ours and our_share:
            run("ours", ours, "step", muons=STEP_MUONS, batch=STEP_MUONS, steps=our_share)
    result: dict[str, Any] = {"separation": {side: summary(values) for side, values in contrast.items()}}
    for job, by_side in seconds.items():
        rows = result[job] = {}
        for side, values in by_side.items():
            rows[side] = summary(values) | {"peak_mb": peaks[job][side], "cpu": summary(cpu_seconds[job][side])}
        if len(rows) == 2:
            rows["ratio"] = rows["peer"]["median"] / rows["ours"]["median"]
            rows["cpu_ratio"] = rows["peer"]["cpu"]["median"] / rows["ours"]["cpu"]["median"]
    return result


def scaling(ours: Worker, options: argparse.Namespace) -> dict[str, Any]:
    """Predictions and steps of growing numbers of muons, with the exponent of the growth."""
    result: dict[str, Any] = {}
    for job, extra in (("predict", {}), ("step", {"steps": 1})):
        rows = []
        for muons in options.sizes:
            batch = min(options.batch, muons)
            answers = [ours(job, muons=muons, batch=batch, **extra) for _ in range(5)]
            row = summary([answer["seconds"][0] for answer in answers])
            row |= {"cpu": summary([answer["cpu_seconds"][0] for answer in answers])}
            row |= {"muons": muons, "peak_mb": max(answer["peak_mb"] for answer in answers)}
            rows.append(row | {"muons_per_second": muons / row["median"]})
        large = [row for row in rows if row["muons"] >= EXPONENT_FROM]
        exponent = scaling_exponent([row["muons"] for row in large], [row["median"] for row in large])
        result[job] = {"rows": rows, "exponent": exponent}
    return result


def print_comparison(result: dict[str, Any]) -> None:
    side_heads = f"{'ours':>11}{'runs':>6}{'peak':>9}{'tomopt':>12}{'runs':>6}{'peak':>9}"
    print(f"  {'':22}{side_heads}{'ratio':>9}{'in CPU time':>13}")
    for job, title in (("predict", f"predict, {PREDICT_MUONS:,} muons"), ("step", f"step, {STEP_MUONS:,} muons")):
        cells = ""
        for side, width in (("ours", 11), ("peer", 12)):
            if row := result[job].get(side):
                cells += f"{human_time(row['median']):>{width}}{row['runs']:>6}{row['peak_mb']:>6.0f} MB"
            else:
                cells += " " * (width + 15)
        ratio = f"{result[job]['ratio']:>8.0f}x{result[job]['cpu_ratio']:>12.0f}x" if "ratio" in result[job] else ""
        print(f"  {title:22}{cells}{ratio}")
    contrasts = ", ".join(f"{side} {row['median']:.3f}" for side, row in result["separation"].items())
    print(f"  contrast of the lead block in the image: {contrasts}")


def print_scaling(result: dict[str, Any]) -> None:
    for job, data in result.items():
        print(f"  {job}: time grows with the number of muons to the power {data['exponent']:.2f}")
        for row in data["rows"]:
            rate = f"{row['muons_per_second']:,.0f} muons/s"
            time, cpu, peak = human_time(row["median"]), human_time(row["cpu"]["median"]), f"{row['peak_mb']:.0f} MB"
            print(f"    {row['muons']:>9,} muons {time:>9} ({cpu:>7} CPU) {rate:>20} peak {peak:>8}")


def measure(options: argparse.Namespace, threads: int, peer_python: Path | None) -> dict[str, Any]:
    """Everything at one number of threads."""
    with ExitStack() as stack:
        ours = peer = None
        if options.sides != "peer":
            ours = stack.enter_context(Worker(Path(sys.executable), HERE / "_worker.py", threads=threads, seed=0))
        if peer_python:
            peer = stack.enter_context(Worker(peer_python, HERE / "peers" / "tomopt_scene.py", threads=threads))
        about = {side: worker("hello") for side, worker in (("ours", ours), ("peer", peer)) if worker}
        used = next(iter(about.values()))["threads"]
        print(f"\n{used} thread{'s' if used > 1 else ''}{'' if threads else ' (default)'}", flush=True)
        result: dict[str, Any] = {"threads": used, "threads_asked": threads, "about": about}
        result |= compare(ours, peer, options)
        print_comparison(result)
        if ours and not options.no_scaling:
            result["scaling"] = scaling(ours, options)
            print_scaling(result["scaling"])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    record: dict[str, Any] = {"benchmark": "tomography", "quick": options.quick, "machine": machine()}
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
        record["our_batch"], record["peer_batch"] = options.batch, PEER_BATCH
        record["results"] = [measure(options, threads, peer_python) for threads in options.threads]
    except BenchmarkError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    append_record(options.results, record)
    print(f"\nappended to {options.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
