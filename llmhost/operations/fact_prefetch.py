"""Facts that a host's operations ask for first, read in one round trip.

A run that changes nothing only asks. Asked one by one, each fact costs a session of sshd and waits
for the one before; asked together they cost one session, and the host works on several at a time.
The answers count until this run's first change on the host (docs/decisions/0078).
"""

import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paramiko import SSHException
from pyinfra.api import FactBase, Host, StringCommand
from pyinfra.api.exceptions import FactProcessError

from llmhost.operations.connection_arguments import connection_arguments, of_connection

_MOST_BYTES = 60_000
"""A command is one argument of a shell: Linux takes 128 KiB, and quoting makes it longer."""


@dataclass(frozen=True)
class Question:
    """A fact with its arguments, all of them by name."""

    fact: type[FactBase[Any]]
    arguments: Mapping[str, Any]

    def key(self, connection: Mapping[str, Any]) -> str:
        """Equal for equal questions that are asked as the same user."""
        named, by = sorted(self.arguments.items()), sorted(connection.items())
        return f"{self.fact.__module__}.{self.fact.__qualname__} {named!r} {by!r}"

    @property
    def command(self) -> str | None:
        """The shell command that answers it. None where it cannot be asked with others: it needs a
        shell or a program of its own, or is not true any more a second later."""
        fact = self.fact()
        if fact.shell_executable or getattr(fact, "of_the_moment", False):
            return None
        if fact.requires_command(**self.arguments):
            return None
        command = fact.command(**self.arguments)
        return command if isinstance(command, str) else str(command.get_raw_value())

    def value(self, lines: list[str]) -> Any:
        """The fact's value, from what the command printed. Raises what the fact raises."""
        fact = self.fact()
        return fact.process(lines) if lines else fact.default()


def ask(fact: type[FactBase[Any]], **arguments: Any) -> Question:
    """For an operation's declaration: it asks this first."""
    return Question(fact, arguments)


@dataclass
class Prefetch:
    """Of one host: what its operations will ask first, and the answers that still count."""

    questions: dict[str, Sequence[Question]] = field(default_factory=dict)
    _answers: dict[str, list[str]] = field(default_factory=dict)

    def expect(self, operation: str, questions: Sequence[Question]) -> None:
        """An operation that will run asks these first."""
        self.questions[operation] = questions

    def forget(self) -> None:
        """The host is about to change: everything is asked again."""
        self._answers.clear()

    def value(self, host: Host, question: Question) -> Any:
        """A fact's value, prefetched or read now."""
        lines = self._answers.get(question.key(connection_arguments(host)))
        if lines is not None:
            try:
                return question.value(lines)
            except FactProcessError:
                pass  # read again, it fails the host as pyinfra does it
        return host.get_fact(question.fact, **question.arguments)

    def read(self, host: Host) -> str:
        """Read everything that is expected; returns why that failed, or nothing. What is missing
        is read when an operation asks for it.

        Called inside an operation, whose sudo and the like are used. With `-vvv` nothing is read:
        pyinfra prints the output of each fact then.
        """
        asked = {} if host.state.print_fact_output else self._commands(host)
        if not asked:
            return ""
        mark = secrets.token_hex(16)
        command = StringCommand(script([*asked.values()], mark))
        try:
            succeeded, output = host.run_shell_command(command, **connection_arguments(host))
        except (OSError, EOFError, SSHException) as error:
            return str(error) or "the connection was lost"
        if not succeeded:
            return str(output.stderr) or "the shell printed no error"
        found = answers(output.stdout_lines, mark)
        self._answers = {key: found[number] for number, key in enumerate(asked) if number in found}
        return ""

    def _commands(self, host: Host) -> dict[str, str]:
        """Commands by key, of operations that run as the present one does, as many as fit."""
        connection, operations = connection_arguments(host), host.state.ops[host]
        found: dict[str, str] = {}
        size = 0
        for operation, questions in self.questions.items():
            own = operations.get(operation)  # none of this host's with _run_once
            if own is None or of_connection(own.global_arguments) != connection:
                continue
            for question in questions:
                command, key = question.command, question.key(connection)
                if command is None or key in found or size + len(command) > _MOST_BYTES:
                    continue
                found[key] = command
                size += len(command)
        return found


def script(commands: Sequence[str], mark: str) -> str:
    """Shell script that runs all commands at the same time, and prints each one's output after a
    line with `mark`, its number and its exit status."""
    lines = ["d=$(mktemp -d) || exit 1", "trap 'rm -rf \"$d\"' EXIT"]
    for number, command in enumerate(commands):
        run = f"sh -c {shlex.quote(command)}"
        lines.append(f'{run} >"$d/{number}" 2>/dev/null </dev/null & p{number}=$!')
    for number in range(len(commands)):
        # The empty line ends an output that does not end its last line.
        lines.append(f'wait "$p{number}"; s=$?; echo {mark} {number} $s; cat "$d/{number}"; echo')
    return "\n".join([*lines, f"echo {mark} end"])


def answers(lines: Iterable[str], mark: str) -> dict[int, list[str]]:
    """Output lines by number of the command, for those that succeeded."""
    found: dict[int, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith(f"{mark} "):
            if current and current[-1] == "":
                current.pop()
            number, _, status = line.removeprefix(f"{mark} ").partition(" ")
            current = []
            if status == "0":
                found[int(number)] = current
        else:
            current.append(line)
    return found
