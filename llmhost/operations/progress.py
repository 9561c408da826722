"""Progress of long steps: what, how much, how long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from paramiko import SSHException
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.context import ctx_host

from llmhost.units import duration, so_far

PATIENCE_SECONDS, EVERY_SECONDS = 5, 10


class Progress:
    """Progress of a long step, from now until `end`; a short one prints nothing.

    `path` is a file on the host that grows to `size` bytes. It is read as the login user.
    """

    def __init__(self, host: Host, what: str, path: str = "", size: int = 0) -> None:
        self.host, self.what = host, what
        self.begun = time.monotonic()
        self.teller = gevent.spawn(_tell, host, what, path, size)

    def end(self, *, succeeded: bool = True) -> None:
        """Print how long the step took, if it was long and succeeded."""
        self.teller.kill()
        seconds = time.monotonic() - self.begun
        if succeeded and seconds > PATIENCE_SECONDS:
            self.host.log(f"  {self.what}: done in {duration(seconds)}")


@contextmanager
def reported(what: str, path: str = "", size: int = 0) -> Iterator[None]:
    """Report the progress of commands that take long, as `Progress` does."""
    host: Host = ctx_host.get()
    if not host.state.is_executing:
        yield
        return
    progress = Progress(host, what, path, size)
    try:
        yield
    except BaseException:
        progress.end(succeeded=False)
        raise
    progress.end()


def _tell(host: Host, what: str, path: str, size: int) -> None:
    begun = time.monotonic()
    begun_with = _bytes(host, path) if size else 0
    gevent.sleep(PATIENCE_SECONDS)
    while True:
        done = _bytes(host, path) if size else 0
        host.log(f"  {what}: {so_far(time.monotonic() - begun, done, size, begun_with)}")
        gevent.sleep(EVERY_SECONDS)


def _bytes(host: Host, path: str) -> int:
    """Size of a growing file; 0 if it cannot be read."""
    try:
        _, output = host.connector.run_shell_command(
            StringCommand("stat", "-c", "%s", QuoteString(path)),
            print_output=False,
            print_input=False,
        )
    except (OSError, EOFError, SSHException):
        return 0  # the command itself reports the error
    return int(output.stdout) if output.stdout.isdecimal() else 0
