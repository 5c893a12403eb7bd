"""Callbacks that keep `metrics.jsonl` and `detectors.jsonl` of a run folder up to date.

Both files are written whole after every epoch, from what a checkpoint keeps: a run that was killed and resumed has the
lines that an uninterrupted one has, each once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffdet.core.storage import write_text
from diffdet.runs.lines import as_lines
from diffdet.tomography.optimisation.callbacks.callback import Callback

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume


_IN_RECTANGLE = ("xy_pos", "z_pos", "xy_span")
"""Families that the rectangle of a panel shows already."""


@torch.no_grad()
def describe_panels(volume: Volume) -> list[dict[str, Any]]:
    """Every panel of a volume as plain values.

    Args:
        volume: The volume.

    Returns:
        For each panel its `layer` (from the top), `position`, number in the layer, `xyz_m`, `span_m` and `cost`. A
        panel that covers no rectangle is told with the extent of its layer and ``"covers": "layer"``; what it learns
        besides position and size stands in `parameters`, by family.
    """
    volume.assign_budget()
    entries = []
    for place, layer in enumerate(volume.get_detectors()):
        for number, panel in enumerate(layer.yield_panels()):
            found = panel.rectangle()
            centre, span = (layer.lw / 2, layer.lw) if found is None else found
            entry: dict[str, Any] = {
                "layer": place,
                "position": layer.pos,
                "panel": number,
                "xyz_m": [*_shortest(centre), *_shortest(panel.z)],
                "span_m": _shortest(span),
                "cost": _shortest(panel.get_cost())[0],
            }
            if found is None:
                entry["covers"] = "layer"
            more = {
                family: _shortest(parameter)
                for family, parameter in panel.parameter_families().items()
                if family not in _IN_RECTANGLE or found is None
            }
            entries.append(entry | ({"parameters": more} if more else {}))
    return entries


def _shortest(values: torch.Tensor) -> list[float]:
    """Numbers with the fewest digits that tell them apart in their own precision: 0.95, not 0.949999988079071."""
    return [float(str(value)) for value in values.detach().reshape(-1).cpu().numpy()]


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
        panels = describe_panels(self._wrapper.volume)
        self.entries = [entry for entry in self.entries if entry["epoch"] < epoch]
        self.entries.append({"epoch": epoch, "panels": panels, "cost": sum(panel["cost"] for panel in panels)})
        write_text(self.path, as_lines(self.entries))


class MetricsRecorder(Callback):
    """Writes the metrics of every phase of every epoch, and tells how far the run is.

    Args:
        path: The file.
        tell: Called with the number of epochs done, of all epochs, and a text; None for nobody.
    """

    saved = ("n_before",)
    transient = ("seconds_before",)

    def __init__(self, path: Path, tell: Callable[[int, int | None, str], None] | None = None) -> None:
        self.path = path
        self.tell = tell
        self.n_before = 0
        self.seconds_before: float | None = None

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds."""
        if self.loop is None:
            return []
        history = self.state.history
        lines = []
        for row, seconds in zip(history.rows, history.seconds, strict=True):
            rest = dict(row)
            epoch, phase, frozen = rest.pop("epoch"), rest.pop("phase"), rest.pop("frozen", False)
            loss, rates = rest.pop("loss", None), rest.pop("learning_rates", None)
            line = {
                "epoch": epoch,
                "phase": "warmup" if phase == "train" and frozen else phase,
                "loss": loss,
                # A loss that a callback supplies has no parts.
                "error": rest.pop("error", loss),
                "cost": rest.pop("cost", 0.0),
            }
            line |= {} if rates is None else {"learning_rates": rates}
            lines.append({**line, "muons": int(rest.pop("muons", 0)), "seconds": round(seconds, 6), **rest})
        return lines

    def on_epoch_begin(self) -> None:
        """Write what is done so far: a phase enters the history after its last event."""
        if self.seconds_before is None:
            # What a resumed run brings from processes before this one.
            self.seconds_before = sum(self.state.history.seconds)
        self._write()

    def on_epoch_end(self) -> None:
        """Count the muons of the phase among its metrics."""
        fit = self._fit
        fit.metrics["muons"] = float(fit.n_muons - self.n_before)
        self.n_before = fit.n_muons

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
