"""The callback that keeps `metrics.jsonl` of a training up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from diffdet.core.storage import write_text
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.training import distributed
from diffdet.runs.folder import finite
from diffdet.runs.lines import as_lines

__all__ = ["MetricsRecorder"]


class MetricsRecorder(Callback):
    """Writes the metrics of every phase of every epoch, and tells how far the training is.

    The file is written whole after every epoch, from what a checkpoint keeps: a run that was killed and resumed has the
    lines that an uninterrupted one has, each once.

    Args:
        path: The file.
        number: Number of the model.
        before: Lines of the models before it.
        tell: Called with the number of the model, its epochs that are done, all of them, and a text.
    """

    transient = ("seconds_before",)

    def __init__(
        self,
        path: Path,
        number: int,
        before: Iterable[Mapping[str, Any]],
        tell: Callable[[int, int, int, str], None],
    ) -> None:
        self.path = path
        self.number = number
        self.before = [dict(line) for line in before]
        self.tell = tell
        self.seconds_before: float | None = None

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds: lines of the models before this one, and of this one."""
        fit = self._model.last_fit if self._model.fit_params is None else self._fit
        assert fit is not None
        lines = []
        for row, seconds in zip(fit.history.rows, fit.history.seconds, strict=True):
            rest = {key: value for key, value in row.items() if key != "frozen"}
            events = (fit.n_batches or 0) * (fit.bs or 0) if row["phase"] == "train" else 0
            lines.append({"model": self.number, **rest, "events": events, "seconds": round(seconds, 6)})
        return [*self.before, *finite(lines)]

    def on_epoch_begin(self) -> None:
        """Write what is done so far: a phase enters the history after its last event."""
        if self.seconds_before is None:
            # What a resumed run brings from processes before this one.
            self.seconds_before = sum(self._fit.history.seconds)
        self._write()

    def on_train_end(self) -> None:
        """Write the last phases."""
        self._write()

    def _write(self) -> None:
        lines = self.lines()
        if not distributed.is_writer() or not lines:
            return
        write_text(self.path, as_lines(lines))
        last = lines[-1]
        loss = "" if last.get("loss") is None else f"{last['phase']} loss {last['loss']:.4g}"
        self.tell(self.number, self._fit.n_epochs_done, self._fit.n_epochs or 0, loss)
