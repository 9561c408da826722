"""pyinfra, with every command that it runs on a host noted in a file, one JSON string a line.

python -m tests.integration.recorded FILE ARGUMENTS… runs `pyinfra ARGUMENTS…`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pyinfra_cli.main import main  # first: it lets gevent patch the standard library

# ruff: isort: split
from pyinfra.connectors.ssh import SSHConnector


def record(file: Path) -> None:
    """Note the commands of this process."""
    run = SSHConnector.run_shell_command

    def noted(self: SSHConnector, command: Any, *args: Any, **arguments: Any) -> Any:
        text = command if isinstance(command, str) else command.get_raw_value()
        with file.open("a") as notes:
            notes.write(json.dumps(text) + "\n")
        return run(self, command, *args, **arguments)

    SSHConnector.run_shell_command = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    _, notes, *arguments = sys.argv
    sys.argv = ["pyinfra", *arguments]
    record(Path(notes))
    main()  # type: ignore[no-untyped-call]
