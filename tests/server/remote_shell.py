"""One shell on a server that runs the commands of all checks.

testinfra starts ssh for each command: even over a shared connection, that is a process here, and a
session and a login shell there. A shell that stays needs none of them.
"""

import base64
import shlex
import subprocess
from pathlib import Path

# Reads one command a line, and answers with three: exit status, standard output, standard error.
_LOOP = """\
directory=$(mktemp -d) && trap 'rm -rf "$directory"' EXIT || exit 1
cd / && while IFS= read -r command; do
  printf %s "$command" | base64 -d >"$directory/command"
  sh "$directory/command" >"$directory/output" 2>"$directory/errors" </dev/null
  echo $?
  base64 -w 0 "$directory/output" && echo
  base64 -w 0 "$directory/errors" && echo
done
"""


class RemoteShell:
    """A shell on `server`, which OpenSSH reaches by the file `config`."""

    def __init__(self, config: Path, server: str) -> None:
        self._process = subprocess.Popen(
            ["ssh", "-F", str(config), server, shlex.join(["exec", "sh", "-c", _LOOP])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, command: str) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and standard error of a shell command.

        Raises RuntimeError if the connection ends first.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(base64.b64encode(command.encode()) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # nothing will be read
        answer = [self._process.stdout.readline() for _ in range(3)]
        if not answer[-1].endswith(b"\n"):
            raise RuntimeError("the connection to the server was lost")
        status, output, errors = answer
        return int(status), base64.b64decode(output), base64.b64decode(errors)

    def close(self) -> None:
        """End the shell; it removes its files."""
        try:
            self._process.communicate(timeout=5)  # closes its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
