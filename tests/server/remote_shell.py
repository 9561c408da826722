"""One shell on a server that runs the commands of all checks.

testinfra starts ssh for each command: even over a shared connection, that is a process here, and a
session and a login shell there. A shell that stays needs none of them, and starts nothing but the
command itself.
"""

import base64
import secrets
import subprocess
import time
from pathlib import Path

COMMAND_SECONDS = 600
"""A command that takes longer is stopped: nvidia-smi, for example, may wait forever for a GPU."""
_STOPPED = (124, 137)
"""Exit statuses of timeout(1), the second after SIGKILL."""

_START = "errors=$(mktemp) && trap 'rm -f \"$errors\"' EXIT && cd / || exit 1\n"
# The command is a file to its shell: as an argument, it could have 128 KiB at most. Its output is
# printed as it is, up to a line with the mark, the status and the base64 of the errors.
_RUN = """\
timeout --kill-after=5 {seconds} sh /dev/fd/3 3<<'{mark}' 2>"$errors" </dev/null
{command}
{mark}
printf '\\n{mark} %s ' $?; [ ! -s "$errors" ] || base64 -w 0 "$errors"; echo
"""


class RemoteShell:
    """A shell on `server`, which OpenSSH reaches by the file `config`. Raises RuntimeError if the
    connection fails."""

    def __init__(self, config: Path, server: str, seconds: float = COMMAND_SECONDS) -> None:
        self._seconds = seconds
        self._mark = secrets.token_hex(16)
        self._process = subprocess.Popen(
            ["ssh", "-F", str(config), server, "exec sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._write(_START)
        self.run("true")  # after what a login shell may print at its start

    def run(self, command: str) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and standard error of a shell command.

        Raises RuntimeError if the connection ends first, TimeoutError if the command does not end.
        """
        begun = time.monotonic()
        self._write(_RUN.format(mark=self._mark, command=command, seconds=self._seconds))
        assert self._process.stdout
        lines: list[bytes] = []
        for line in self._process.stdout:
            if line.startswith(f"{self._mark} ".encode()) and line.endswith(b"\n"):
                _, status, errors = line[:-1].split(b" ")
                if int(status) in _STOPPED and time.monotonic() - begun >= self._seconds:
                    raise TimeoutError(f"stopped after {self._seconds:g} s: {command}")
                return int(status), b"".join(lines)[:-1], base64.b64decode(errors)
            lines.append(line)
        raise RuntimeError("the connection to the server was lost")

    def _write(self, text: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # nothing will be read

    def close(self) -> None:
        """End the shell; it removes its file."""
        try:
            self._process.communicate(timeout=5)  # closes its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
