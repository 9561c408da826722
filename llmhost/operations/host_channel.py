"""A shell on a host that runs during the deploy, with line-based input and output.

Over SSH, it is a channel of pyinfra's connection and ends with it. For `@local`, it is a process.
"""

import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paramiko import SSHException, Transport
from pyinfra.api import Host, StringCommand

from llmhost.operations.connection_arguments import shell_line

LOST = (OSError, EOFError, SSHException)
"""Exceptions of a lost connection."""
_END_SECONDS = 10


@dataclass(frozen=True)
class HostChannel:
    """`read_line` and `read_error` (standard error) return an empty string after the shell has
    ended. `send` and `close` then do nothing: the next command reports the lost connection."""

    read_line: Callable[[], str]
    read_error: Callable[[], str]
    send: Callable[[str], None]
    close: Callable[[], None]


def open_channel(host: Host, command: StringCommand, arguments: Mapping[str, Any]) -> HostChannel:
    """Start a command on a connected host, with arguments from `connection_arguments`. Raises the
    exceptions in LOST."""
    raw = shell_line(host, command, arguments)
    client = getattr(host.connector, "client", None)
    return _over_ssh(client.get_transport(), raw) if client else _local(raw)


def _over_ssh(transport: Transport, command: str) -> HostChannel:
    channel = transport.open_session()
    channel.exec_command(command)
    output, errors = channel.makefile("r"), channel.makefile_stderr("r")

    def send(line: str) -> None:
        with suppress(OSError):
            channel.sendall(f"{line}\n".encode())

    def close() -> None:
        with suppress(*LOST):
            channel.close()

    return HostChannel(output.readline, errors.readline, send, close)


def _local(command: str) -> HostChannel:
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr

    def send(line: str) -> None:
        with suppress(OSError, ValueError):
            print(line, file=stdin, flush=True)

    def close() -> None:
        with suppress(OSError):
            stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)

    return HostChannel(stdout.readline, stderr.readline, send, close)
