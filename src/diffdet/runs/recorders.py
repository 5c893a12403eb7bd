"""Callbacks that keep `metrics.jsonl` and `detectors.jsonl` of a run folder up to date.

Both files are written whole after every epoch, from what a checkpoint keeps: a run that was killed and resumed has the
lines that an uninterrupted one has, each once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffdet.core.storage import write_text
from diffdet.tomography.optimisation.callbacks.callback import Callback

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume


def as_lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line; numbers that are not finite become null, which JSON can say."""
    return "".join(json.dumps(_finite(entry), ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@torch.no_grad()
def describe_panels(volume: Volume) -> list[dict[str, Any]]:
    """Every panel of a volume as plain values.

    Args:
        volume: The volume.

    Returns:
        For each panel its `layer` (from the top), `position`, number in the layer, `xyz_m`, `span_m` and `cost`.
    """
    volume.assign_budget()
    entries = []
    detectors = set(map(id, volume.get_detectors()))
    for place, layer in enumerate(layer for layer in volume.layers if id(layer) in detectors):
        for number, panel in enumerate(layer.yield_panels()):
            families = panel.parameter_families()
            xy = families.get("xy_pos")
            span = panel.get_scaled_xy_span() if hasattr(panel, "get_scaled_xy_span") else None
            entries.append(
                {
                    "layer": place,
                    "position": layer.pos,
                    "panel": number,
                    "xyz_m": [*(xy.tolist() if xy is not None else [0.0, 0.0]), float(panel.z)],
                    "span_m": span.tolist() if span is not None else [0.0, 0.0],
                    "cost": float(panel.get_cost()),
                }
            )
    return entries


class DetectorRecorder(Callback):
    """Writes where every panel is, before the first epoch and after each.

    Args:
        path: The file.
    """

    saved = ("entries",)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def on_train_begin(self) -> None:
        """Record the detector that the run starts from."""
        super().on_train_begin()
        if not self.entries:
            self._record(0)

    def on_epoch_end(self) -> None:
        """Record the detector after its updates."""
        if self.state.phase == "train":
            self._record(self.state.epoch)

    def _record(self, epoch: int) -> None:
        assert self.wrapper is not None
        panels = describe_panels(self.wrapper.volume)
        self.entries = [entry for entry in self.entries if entry["epoch"] < epoch]
        self.entries.append({"epoch": epoch, "panels": panels, "cost": sum(panel["cost"] for panel in panels)})
        write_text(self.path, as_lines(self.entries))


class MetricsRecorder(Callback):
    """Writes the metrics of every phase of every epoch, and tells how far the run is.

    Args:
        path: The file.
        muons: Muons of a training and of a validation epoch.
        tell: Called with the number of epochs done, of all epochs, and a text; None for nobody.
    """

    def __init__(
        self, path: Path, muons: Mapping[str, int], tell: Callable[[int, int | None, str], None] | None = None
    ) -> None:
        self.path = path
        self.muons = dict(muons)
        self.tell = tell

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds."""
        history = self.state.history
        lines = []
        for row, seconds in zip(history.rows, history.seconds, strict=True):
            phase = "warmup" if row["phase"] == "train" and row.get("frozen") else row["phase"]
            known = {key: row.get(key) for key in ("loss", "error", "cost")}
            rest = {
                key: value
                for key, value in row.items()
                if key not in ("epoch", "phase", "frozen", "learning_rates", *known)
            }
            rates = {"learning_rates": row["learning_rates"]} if "learning_rates" in row else {}
            lines.append(
                {
                    "epoch": row["epoch"],
                    "phase": phase,
                    **known,
                    **rates,
                    "muons": self.muons[row["phase"]],
                    "seconds": round(seconds, 6),
                    **rest,
                }
            )
        return lines

    @property
    def n_muons(self) -> int:
        """Muons of all phases that are done."""
        return sum(line["muons"] for line in self.lines())

    def on_epoch_begin(self) -> None:
        """Write what is done so far: a phase enters the history after its last event."""
        self._write()

    def on_train_end(self) -> None:
        """Write the last phases."""
        self._write()

    def _write(self) -> None:
        lines = self.lines()
        if not lines:
            return
        write_text(self.path, as_lines(lines))
        if self.tell is not None:
            last = lines[-1]
            loss = "" if last["loss"] is None else f"{last['phase']} loss {last['loss']:.4g}"
            self.tell(self.state.n_epochs_done, self.state.n_epochs, loss)
