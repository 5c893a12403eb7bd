"""Signals that end a run in good order: the step in progress is finished, the state saved, the reason told."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["Interruptible", "exit_code"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGUSR1")


def exit_code(signal_number: int) -> int:
    """Exit code of a process that a signal ended in good order: 130 for SIGINT, 143 for SIGTERM and SIGUSR1."""
    return 130 if signal_number == signal.SIGINT else 143


class Interruptible:
    """While in the block, SIGINT, SIGTERM and SIGUSR1 are remembered instead of ending the process.

    The first signal is kept in `signal_number`, for whoever is in the block to finish its step and save. A second one
    ends at once, by `KeyboardInterrupt` (SIGINT) or `SystemExit` with the code that `exit_code` gives. Python delivers
    signals to the main thread only; elsewhere the block does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.signal_number = None
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(exit_code(number))
