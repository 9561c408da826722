"""Seeing to it that what must be cleaned up is, however the process is asked to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Termination:
    """Turns SIGTERM and a closed terminal into an exception, while it is in force.

    By default they end a process without running a single ``finally``.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> None:
        # Python lets only the main thread set handlers; in others the caller has to see to it.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, _interrupt) for number in _ENDING}

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    # As with Ctrl-C: pytest takes a SystemExit for one test's failure and goes on with the next.
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C, SIGTERM and SIGHUP until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
