"""Signals outside the training loop, where there is no step to finish: stop at once, in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interrupted(BaseException):
    """A signal asked the job to end. Like `KeyboardInterrupt`, it passes handlers of ordinary errors.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def interrupting() -> Iterator[None]:
    """While in the block, SIGINT, SIGTERM and SIGUSR1 raise `Interrupted`.

    The training loop installs its own handlers within, which finish the step. Python delivers signals to the main
    thread only; elsewhere the block does nothing.
    """
    previous: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        # Only the first: what follows is saving, which a second signal must not tear apart.
        for other in previous:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stopping() -> Iterator[None]:
    """For jobs that leave nothing behind unless they finish: a signal unwinds the block, then ends the process.

    Files that are being written are removed on the way.

    Raises:
        KeyboardInterrupt: After SIGINT.
        SystemExit: After another signal, with the exit code that it means.
    """
    from diffdet.loop.interrupts import exit_code

    try:
        with interrupting():
            yield
    except Interrupted as error:
        if error.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(exit_code(error.number)) from None
