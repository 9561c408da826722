"""One command on each of several connected hosts, at the same time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.pool import Pool
from pyinfra.api import Host, StringCommand

from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.host_channel import LOST

_AT_ONCE = 64


@dataclass(frozen=True)
class Answer:
    """The standard output of a command, or why there is none."""

    output: str = ""
    error: str = ""


def run_on_each(
    commands: Mapping[Host, str], seconds: float, read: Callable[[str], object] = str
) -> dict[str, Answer]:
    """The answers by host. A host that does not answer within `seconds` does not delay others, and
    one whose output `read` refuses with a ValueError has an error for an answer."""
    return each_of(commands, lambda host: _run(host, commands[host], read), seconds)


def each_of(
    hosts: Mapping[Host, Any], question: Callable[[Host], Answer], seconds: float
) -> dict[str, Answer]:
    """Call a function with each host at the same time. Whatever it raises is the error of this
    host, and hides no answer of another."""
    pool = Pool(_AT_ONCE)
    jobs = {host.name: pool.spawn(_within, host, question, seconds) for host in hosts}
    pool.join()
    return {name: job.get() for name, job in jobs.items()}


def _within(host: Host, question: Callable[[Host], Answer], seconds: float) -> Answer:
    late = Answer(error=f"the host did not answer within {seconds:g} s")
    try:
        answer: Answer = gevent.with_timeout(seconds, question, host, timeout_value=late)
        return answer
    except LOST as error:
        return Answer(error=f"the connection was lost: {error}")
    except Exception as error:  # one broken host must not end the command
        return Answer(error=f"the host could not be asked: {type(error).__name__}: {error}")


def _run(host: Host, command: str, read: Callable[[str], object]) -> Answer:
    arguments = connection_arguments(host)
    succeeded, output = host.run_shell_command(StringCommand(command), **arguments)
    if not succeeded:
        return Answer(error=output.stderr.strip() or "the command failed and printed nothing")
    try:
        read(output.stdout)
    except ValueError as error:
        return Answer(error=f"its answer cannot be read: {error}")
    return Answer(output.stdout)
