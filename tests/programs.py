"""Programs that a test starts, and that end with it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any


@contextmanager
def running(
    command: Sequence[str | PathLike[str]], **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """A `subprocess.Popen` that is killed at the end of the block, also of one that failed: Popen
    itself waits until the program ends."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
