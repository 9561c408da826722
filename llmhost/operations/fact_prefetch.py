"""Read the facts that a host's operations need first in one round trip.

A run that changes nothing only reads facts. Read one by one, each fact costs an SSH session and
waits for the one before; read together, they cost one session and run in parallel on the host. The
values are valid until this run's first change on the host (docs/decisions/0078).
"""

import secrets
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paramiko import SSHException
from pyinfra.api import FactBase, Host, StringCommand
from pyinfra.api.exceptions import FactProcessError

from llmhost.facts.lists import OfList
from llmhost.operations.connection_arguments import connection_arguments, of_connection

_MOST_BYTES = 60_000
"""Limit of a script, which is one argument of a shell: Linux allows 128 KiB, and quoting adds."""


@dataclass(frozen=True)
class Question:
    """A fact with its keyword arguments."""

    fact: type[FactBase[Any]]
    arguments: Mapping[str, Any]

    def key(self, connection: Mapping[str, Any]) -> str:
        """Equal for equal questions as the same user."""
        named, by = sorted(self.arguments.items()), sorted(connection.items())
        return f"{self.fact.__module__}.{self.fact.__qualname__} {named!r} {by!r}"

    @property
    def command(self) -> str | None:
        """The fact's shell command. None if it cannot run together with others: it needs a shell or
        a program of its own, or its value is valid only for a moment."""
        fact = self.fact()
        if fact.shell_executable or getattr(fact, "of_the_moment", False):
            return None
        if fact.requires_command(**self.arguments):
            return None
        command = fact.command(**self.arguments)
        return command if isinstance(command, str) else str(command.get_raw_value())

    @property
    def listed(self) -> Collection[str] | None:
        """The list of a OfList that one command can read together with other lists."""
        if issubclass(self.fact, OfList) and {*self.arguments} == {self.fact.listed}:
            return [*self.arguments[self.fact.listed]]
        return None

    def value(self, lines: list[str]) -> Any:
        """The fact's value from the output of the command, or of the one of `merged`. Raises what
        the fact raises."""
        fact = self.fact()
        value = fact.process(lines) if lines else fact.default()
        if self.listed is not None:
            return fact.part(value, self.listed)  # type: ignore[attr-defined]
        return value


def ask(fact: type[FactBase[Any]], **arguments: Any) -> Question:
    """A question, for the declaration of an operation."""
    return Question(fact, arguments)


def merged(questions: Iterable[Question]) -> list[tuple[Question, list[Question]]]:
    """Questions that together answer all of these, and which of these each answers."""
    groups: dict[Any, list[Question]] = {}
    for question in questions:
        alone = question.listed is None
        groups.setdefault(id(question) if alone else question.fact, []).append(question)
    return [(_together(group), group) for group in groups.values()]


def _together(questions: Sequence[Question]) -> Question:
    first, *others = questions
    if not others:
        return first
    everything = [each for question in questions for each in question.listed or ()]
    assert issubclass(first.fact, OfList)
    return ask(first.fact, **{first.fact.listed: [*dict.fromkeys(everything)]})


@dataclass
class Prefetch:
    """The questions of a host's operations, and the answers that are still valid."""

    questions: dict[str, Sequence[Question]] = field(default_factory=dict)
    _answers: dict[str, list[str]] = field(default_factory=dict)

    def expect(self, operation: str, questions: Sequence[Question]) -> None:
        """Record the first questions of an operation that will run."""
        self.questions[operation] = questions

    def forget(self) -> None:
        """Drop all answers, because the host is about to change."""
        self._answers.clear()

    def value(self, host: Host, question: Question) -> Any:
        """A fact's value, prefetched or read now."""
        lines = self._answers.get(question.key(connection_arguments(host)))
        if lines is not None:
            try:
                return question.value(lines)
            except FactProcessError:
                pass  # pyinfra reads it again and reports the error
        return host.get_fact(question.fact, **question.arguments)

    def read(self, host: Host) -> str:
        """Read everything that is expected; returns why that failed, or nothing. A missing fact is
        read when an operation needs it.

        Called inside an operation, with its sudo and other arguments. With `-vvv` nothing is
        prefetched: pyinfra then prints the output of each fact.
        """
        questions = {} if host.state.print_fact_output else self._commands(host)
        if not questions:
            return ""
        mark = secrets.token_hex(16)
        command = StringCommand(script([*questions], mark))
        try:
            succeeded, output = host.run_shell_command(command, **connection_arguments(host))
        except (OSError, EOFError, SSHException) as error:
            return str(error) or "the connection was lost"
        if not succeeded:
            return str(output.stderr) or "the shell printed no error"
        found = answers(output.stdout_lines, mark)
        self._answers = {
            key: found[number]
            for number, keys in enumerate(questions.values())
            for key in keys
            if number in found
        }
        return ""

    def _commands(self, host: Host) -> dict[str, list[str]]:
        """Commands, as many as fit, with the keys of the questions that each answers."""
        connection = connection_arguments(host)
        found: dict[str, list[str]] = {}
        size = 0
        for question, answered in merged(self._expected(host, connection).values()):
            command = question.command
            if command is None or size + len(command) > _MOST_BYTES:
                continue
            found[command] = [each.key(connection) for each in answered]
            size += len(command)
        return found

    def _expected(self, host: Host, connection: Mapping[str, Any]) -> dict[str, Question]:
        """Questions by key, of operations with the same connection arguments."""
        operations = host.state.ops[host]
        found: dict[str, Question] = {}
        for operation, questions in self.questions.items():
            own = operations.get(operation)  # not on this host, with _run_once
            if own is not None and of_connection(own.global_arguments) == connection:
                found |= {question.key(connection): question for question in questions}
        return found


def script(commands: Sequence[str], mark: str) -> str:
    """Shell script that runs all commands in parallel and prints the output of each after a line
    with `mark`, its number and its exit status."""
    lines = ["d=$(mktemp -d) || exit 1", "trap 'rm -rf \"$d\"' EXIT"]
    for number, command in enumerate(commands):
        run = f"(eval {shlex.quote(command)})"  # not `sh -c`, which costs 1 ms more for each
        lines.append(f'{run} >"$d/{number}" 2>/dev/null </dev/null & p{number}=$!')
    for number in range(len(commands)):
        # The empty line ends an output whose last line has no newline.
        head = f'printf "\\n{mark} {number} $?\\n" >"$d/{number}.head"'
        lines.append(f'wait "$p{number}"; {head}')
    parts = " ".join(f'"$d/{number}.head" "$d/{number}"' for number in range(len(commands)))
    return "\n".join([*lines, f'cat {parts}; printf "\\n{mark} end\\n"'])


def answers(lines: Iterable[str], mark: str) -> dict[int, list[str]]:
    """Output lines by command number, for the commands that succeeded."""
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
