"""What this installation can do: versions, machine, devices, and which extras are there."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Any

EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "root": (("uproot", "awkward"), "ROOT files: hits in TTrees"),
    "parquet": (("pyarrow",), "Parquet files: hits"),
    "pandas": (("pandas",), "tables of pandas: fold files, predictions"),
    "view": (("plotly",), "the interactive 3-D detector in reports"),
}
"""Extras, the modules that each brings, and what it enables."""

_PACKAGES = (
    "torch",
    "numpy",
    "h5py",
    "matplotlib",
    "pydantic",
    "PyYAML",
    "click",
    "rich",
    "Jinja2",
    "safetensors",
    "filelock",
    "jaxtyping",
)


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers, for `config.yaml` and `result.json`; does not load torch."""
    found = {
        "diffdet": _version("diffdet"),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
    }
    return found | {"platform": f"{platform.system()} {platform.machine()}"}


def _version(package: str) -> str:
    if package == "diffdet":
        from diffdet._version import __version__

        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _memory() -> dict[str, str]:
    """Total and available memory where the operating system tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return {
            label: f"{int(lines[key].split()[0]) / 2**20:.1f} GiB"
            for label, key in (("memory", "MemTotal"), ("available", "MemAvailable"))
        }
    except (OSError, KeyError, ValueError):
        return {}


def _cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def examine() -> dict[str, Any]:
    """Look at this installation.

    Returns:
        `versions`, `machine`, `devices`, `extras` and `advice`, all plain values.
    """
    import torch

    cpus, threads = _cpus(), torch.get_num_threads()
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processors": cpus,
        "torch threads": threads,
        **_memory(),
    }
    devices = [{"name": "cpu", "description": f"{platform.machine()}, {threads} threads"}]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(
                {
                    "name": f"cuda:{index}",
                    "description": f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB",
                }
            )
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "description": "Apple GPU"})
    extras, advice = [], []
    for name, (modules, enables) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        extras.append({"name": name, "enables": enables, "missing": missing})
        if missing:
            advice.append(f'{enables} needs: pip install "diffdet[{name}]"')
    if threads > cpus:
        advice.append(f"torch uses {threads} threads on {cpus} processors; OMP_NUM_THREADS={cpus} avoids the quarrel")
    return {
        "versions": {"diffdet": _version("diffdet"), **{package: _version(package) for package in _PACKAGES}},
        "machine": machine,
        "devices": devices,
        "extras": extras,
        "advice": advice,
    }
