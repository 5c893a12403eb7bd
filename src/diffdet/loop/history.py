"""What a run has measured so far, and one line that says how it goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from diffdet.core.checks import check_positive
from diffdet.loop.callbacks import Callback

__all__ = ["History", "ProgressLine"]


class History:
    """Metrics of every phase that is done: one row each, in order.

    A row holds ``epoch``, ``phase``, ``frozen`` (whether a warm-up kept the parameters), the metrics of the phase, and
    after training ``learning_rates``. Equal runs have equal rows; how long a phase took stands apart, in `seconds`.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"History of {len(self)} phases"

    def append(self, row: Mapping[str, Any], seconds: float) -> None:
        """Add a phase and the time that it took, s."""
        self.rows.append(dict(row))
        self.seconds.append(seconds)

    def column(self, name: str, phase: str | None = None) -> list[Any]:
        """One metric of every phase that has it.

        Args:
            name: Name of the metric.
            phase: ``"train"`` or ``"valid"``; both where None.
        """
        return [row[name] for row in self.rows if name in row and phase in (None, row["phase"])]

    def state_dict(self) -> dict[str, Any]:
        """Rows and times, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows], "seconds": list(self.seconds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.rows = [dict(row) for row in state["rows"]]
        self.seconds = list(state["seconds"])


class ProgressLine(Callback):
    """Says how a run goes: one line that is drawn anew in a terminal, one plain line per interval elsewhere.

    Args:
        interval: Seconds between two plain lines. The end of an epoch in a terminal, and the end of the run everywhere,
            are always told.
        stream: Where to write; standard error when None.
        clock: Where the time comes from, s.

    Raises:
        InputError: If the interval is not positive.
    """

    transient = ("_shown_at", "_begun_at", "_live")

    def __init__(
        self,
        interval: float = 10.0,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_positive("interval", interval)
        self.interval = interval
        self._stream = stream
        self._clock = clock
        self._shown_at = self._begun_at = clock()
        self._live: Any = None

    def on_train_begin(self) -> None:
        """Start the clock and, in a terminal, the line."""
        self._shown_at = self._begun_at = self._clock()
        stream = sys.stderr if self._stream is None else self._stream
        if stream.isatty():
            from rich.console import Console
            from rich.status import Status

            self._live = Status("", console=Console(file=stream))
            self._live.start()

    def on_step_end(self) -> None:
        """Draw the line anew, or write one where it is time."""
        self._show(f"batch {self.state.batch + 1}", due=False)

    def on_epoch_end(self) -> None:
        """Tell the metrics of the phase."""
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in self.state.metrics.items())
        self._show(metrics, due=self._live is not None)

    def on_train_end(self) -> None:
        """Tell why the run ended."""
        self.release()
        minutes, seconds = divmod(self._clock() - self._begun_at, 60)
        self._write(f"{self.state.stop_reason or 'done'} ({int(minutes)}:{seconds:04.1f} min)")

    def release(self) -> None:
        """Take the line off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, what: str, due: bool) -> None:
        state = self.state
        line = f"epoch {state.epoch}/{state.n_epochs} {state.phase}  {what}"
        now = self._clock()
        if self._live is not None:
            self._live.update(line)
            if due:
                self._live.console.print(line, highlight=False, markup=False)
        elif due or now - self._shown_at >= self.interval:
            self._write(line)
            self._shown_at = now

    def _write(self, line: str) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        print(line, file=stream, flush=True)
