"""Run shell scripts as root, over OpenSSH or on this machine, with byte streams."""

import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from llmhost.inventory.ssh import ssh_config, ssh_target

LOCAL = "@local"


class RemoteError(RuntimeError):
    """A script failed; the message is the last line of its output."""


@dataclass(frozen=True)
class Remote:
    """A machine; `reach` is a command that runs the script in its last argument there."""

    name: str
    reach: tuple[str, ...]

    @property
    def is_root(self) -> bool:
        """Whether the login user is root; other users need sudo without a password."""
        return self.run_as_login("id -u").strip() == "0"

    def attempt(self, script: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a script and return how it ended, even if it failed."""
        return subprocess.run([*self.reach, _as_root(script)], input=given, capture_output=True)

    def run(self, script: str, given: bytes = b"") -> str:
        """The output of a script. Raises RemoteError if it fails."""
        return self._output(self.attempt(script, given))

    def run_as_login(self, script: str) -> str:
        """The same as the login user, with the login's environment."""
        return self._output(self.attempt_as_login(script))

    def attempt_as_login(self, script: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a script as the login user and return how it ended, even if it failed."""
        return subprocess.run([*self.reach, script], input=b"", capture_output=True)

    def interact(self, script: str, *, as_root: bool) -> int:
        """Run a script with this terminal, if there is one; returns its exit status."""
        program, *options = self.reach
        if program == "ssh":  # keys with a passphrase may be asked for
            terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
            options = [*options[:-1], "-o", "BatchMode=no", *terminal, options[-1]]
        words = [_as_root(script)] if as_root else [script] if script else []
        return subprocess.run([program, *options, *words]).returncode

    def save(self, script: str, file: BinaryIO, given: bytes = b"") -> None:
        """Write a script's output to a file."""
        ran = subprocess.run(
            [*self.reach, _as_root(script)], input=given, stdout=file, stderr=subprocess.PIPE
        )
        self._check(ran.returncode, ran.stderr)

    def feed(self, script: str, pieces: Iterable[bytes]) -> None:
        """Stream input to a script."""
        command = [*self.reach, _as_root(script)]
        error = b""
        # It may end early: its status and output are checked below. What is still in the buffer of
        # its input is then written once more at the end.
        with (
            suppress(BrokenPipeError),
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        ):
            assert process.stdin and process.stderr
            with suppress(BrokenPipeError):
                for piece in pieces:
                    process.stdin.write(piece)
                process.stdin.close()
            error = process.stderr.read()
        self._check(process.returncode, error)

    def _output(self, ran: "subprocess.CompletedProcess[bytes]") -> str:
        self._check(ran.returncode, ran.stderr, ran.stdout)
        return ran.stdout.decode(errors="replace")

    def _check(self, status: int, *outputs: bytes) -> None:
        if status:
            words = next((text for text in outputs if text.strip()), b"").decode(errors="replace")
            last = "\n".join(words.strip().splitlines()[-10:])
            raise RemoteError(f"{self.name}: {last or f'a command ended with status {status}'}")


def _as_root(script: str) -> str:
    """The script as one command that the login user can run."""
    quoted = shlex.quote(script)
    return f'if [ "$(id -u)" = 0 ]; then exec sh -c {quoted}; else exec sudo -n sh -c {quoted}; fi'


def ssh_address(name: str, data: Mapping[str, Any]) -> str:
    """Address or host name of a host, by the SSH settings of its inventory."""
    if name == LOCAL:
        return "127.0.0.1"
    with TemporaryDirectory(prefix="llmhost-") as directory:
        config = Path(directory, "config")
        config.write_text(ssh_config(name, data, Path(directory)))
        asked = ["ssh", "-G", "-F", str(config), ssh_target(name, data)]
        lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    known = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return known.get("hostname", name)


@contextmanager
def remote(name: str, data: Mapping[str, Any]) -> Iterator[Remote]:
    """Connect to a host of an inventory; all scripts share one connection."""
    if name == LOCAL:
        yield Remote("this machine", ("sh", "-c"))
        return
    with TemporaryDirectory(prefix="llmhost-") as directory:
        config = Path(directory, "config")
        config.write_text(ssh_config(name, data, Path(directory)))
        yield Remote(name, ("ssh", "-F", str(config), ssh_target(name, data)))
