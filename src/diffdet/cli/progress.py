"""Progress on standard error: a live bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click


class Progress:
    """Tells how far a job is. Callable as ``progress(done, total, text)``.

    Args:
        title: What is being done.
        unit: What is counted, in the plural.
        quiet: Whether to say nothing.
        interval: Seconds between two plain lines where standard error is no terminal.
    """

    def __init__(self, title: str, unit: str, *, quiet: bool = False, interval: float = 10.0) -> None:
        self._title, self._unit, self._quiet, self._interval = title, unit, quiet, interval
        self._live = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._task: Any = None
        self._start = self._last = time.monotonic()
        self._latest: tuple[int, int | None, str] | None = None

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, text="")
        return self

    def __call__(self, done: int, total: int | None = None, text: str = "") -> None:
        """Report progress.

        Args:
            done: How many are done.
            total: How many there are, where known.
            text: What else is worth saying now, such as the loss.
        """
        self._latest = (done, total, text)
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if now - self._last >= self._interval or done == total:
            self._last = now
            self._line(done, total, text)

    def stage(self, title: str, unit: str | None = None) -> None:
        """Begin the next part of the job."""
        self._title, self._unit = title, unit or self._unit
        if self._bar is not None:
            self._bar.update(self._task, description=title, completed=0, total=None, text="")
        elif not self._quiet:
            click.echo(f"{title} ...", err=True)
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            click.echo(text, err=True)

    def _line(self, done: int, total: int | None, text: str) -> None:
        of = "" if total is None else f" of {total}"
        rest = f"  {text}" if text else ""
        click.echo(f"{self._title}: {done}{of} {self._unit}, {time.monotonic() - self._start:.0f} s{rest}", err=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
