"""Speed and memory of the background generators, side by side in one run.

Each network is measured in its documented form (plain PyTorch, the 40 images of an event in one pass) and as a fast
painter, in float32 and in bf16, at equal weights; `clusters` beside them. An event counts from its random numbers to
its digits. Every form runs in a process of its own, and they take turns; times are medians by the clock and by the
processors' use, peak memory is the largest resident size of the process, interpreter and torch included. The largest
difference between painted numbers (from -1 to 1) of the two forms stands beside. Every run is appended to
`results/overlay.jsonl`.

    python benchmarks/overlay.py                     all, two threads: about 5 minutes on 2 free cores
    python benchmarks/overlay.py --quick             one event a turn
    python benchmarks/overlay.py --models clusters
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _common import HERE, BenchmarkError, Worker, append_record, human_time, machine, summary

import diffdet

NETWORKS = ("convnet", "resnet", "ieagan")
FORMS = ("documented", "fast", "bf16")
WORKER = HERE / "_overlay_worker.py"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one event of each form")
    parser.add_argument("--models", nargs="+", choices=(*NETWORKS, "clusters"), default=[*NETWORKS, "clusters"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--threads", type=int, default=2, help="of each process (default %(default)s)")
    parser.add_argument("--runs", type=int, help="counted events a turn")
    parser.add_argument("--turns", type=int, help="how often the forms take turns")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "overlay.jsonl")
    options = parser.parse_args(arguments)
    options.runs = options.runs or (1 if options.quick else 2)
    options.turns = options.turns or (1 if options.quick else 3)
    return options


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of all forms of one generator."""
    forms = options.forms if name != "clusters" else ["fast"]
    weights, reference = folder / f"{name}.safetensors", folder / f"{name}.pt"
    if name != "clusters":
        with Worker(Path(sys.executable), WORKER, threads=options.threads) as worker:
            worker("make", name=name, weights=str(weights))
    answers: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
    errors: dict[str, Any] = {}
    for turn in range(options.turns):
        for form in forms:  # a process at a time, so that none takes memory or cores from another
            with Worker(Path(sys.executable), WORKER, threads=options.threads) as worker:
                runs = options.runs if name != "clusters" else 5
                answers[form].append(worker("measure", name=name, form=form, weights=str(weights), runs=runs))
                if turn == 0 and name != "clusters":
                    errors[form] = worker("compare", form=form, reference=str(reference))
    found: dict[str, Any] = {}
    for form, turns in answers.items():
        found[form] = {
            "seconds_per_event": summary([seconds for turn in turns for seconds in turn["wall"]]),
            "core_seconds_per_event": summary([seconds for turn in turns for seconds in turn["cpu"]]),
            "peak_mb": max(turn["peak_mb"] for turn in turns),
            "load_seconds": median(turn["load_seconds"] for turn in turns),
            "digits_per_event": median(turn["digits"] for turn in turns),
            "difference": errors.get(form),
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    print(f"diffdet {diffdet.__version__}, torch {torch.__version__}, {options.threads} threads")
    print("model     form         s/event   core s    ratio  peak MB  digits  largest difference")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            try:
                results[name] = measure(name, options, Path(folder))
            except BenchmarkError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
            slow = results[name].get("documented")
            for form, figures in results[name].items():
                seconds = figures["seconds_per_event"]["median"]
                if slow is not None:
                    figures["ratio"] = slow["seconds_per_event"]["median"] / seconds
                    slow_cores = slow["core_seconds_per_event"]["median"]
                    figures["ratio_of_core_seconds"] = slow_cores / figures["core_seconds_per_event"]["median"]
                ratio = f"{figures['ratio']:.1f}" if "ratio" in figures else ""
                cores = human_time(figures["core_seconds_per_event"]["median"])
                error = f"{figures['difference']['largest']:.1e}" if figures["difference"] else ""
                print(
                    f"{name:<9} {form:<11} {human_time(seconds):>9} {cores:>8} {ratio:>8} "
                    f"{figures['peak_mb']:>8.0f} {figures['digits_per_event']:>7.0f}  {error}",
                    flush=True,
                )
    record = {"machine": machine(), "versions": {"diffdet": diffdet.__version__, "torch": torch.__version__}}
    append_record(options.results, {**record, "threads": options.threads, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
