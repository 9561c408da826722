"""Cleans up whichever signal ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Termination:
    """A context manager that turns SIGTERM and a closed terminal into an exception.

    By default they end a process without running a single ``finally``.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> None:
        # Python lets only the main thread set handlers; in other threads the caller must do it.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, _interrupt) for number in _ENDING}

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    # As with Ctrl-C: for pytest a SystemExit is the failure of one test, and it runs the next.
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
