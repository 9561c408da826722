"""Facts read ahead: all that a host's operations will ask for first, in one round trip.

A run that changes nothing is a run of questions. Asked one by one they cost a session of sshd each
and wait for one another; asked together they cost one, and the host works at several at a time.
What was read counts until this run's first change on the host (docs/decisions/0078).
"""

import secrets
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paramiko import SSHException
from pyinfra.api import FactBase, Host, StringCommand
from pyinfra.api.facts import _handle_fact_kwargs, _make_command

_MOST_BYTES = 60_000
"""A command is one argument of a shell: Linux takes 128 KiB, and quoting makes it longer."""


class _Foreseen(BaseException):
    """Ends the body of an operation that was called only to see what it asks for first."""


@dataclass(frozen=True)
class _Question:
    fact: type[FactBase[Any]]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def key(self) -> str:
        named = sorted(self.kwargs.items())
        return f"{self.fact.__module__}.{self.fact.__qualname__} {self.args!r} {named!r}"


@dataclass
class _Ahead:
    """Of one host: what will be asked, what is known, and what goes on."""

    questions: dict[str, _Question] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    foreseeing: bool = False
    reading: bool = False


_hosts: dict[Host, _Ahead] = {}


def prepare(host: Host) -> None:
    """Let this host's facts be read ahead; before its first operation is declared."""
    host = host.inventory.get_host(host.name)  # `pyinfra.host` is a stand-in for the present one
    if host in _hosts:
        return
    ahead = _hosts[host] = _Ahead()
    ask, methods = host.get_fact, host.__dict__

    def get_fact(fact: type[FactBase[Any]], *args: Any, **kwargs: Any) -> Any:
        question = _Question(fact, args, kwargs)
        if ahead.foreseeing:
            ahead.questions[question.key] = question
            raise _Foreseen
        if question.key in ahead.known:
            return ahead.known[question.key]
        before, ahead.reading = ahead.reading, True
        try:
            return ask(fact, *args, **kwargs)
        finally:
            ahead.reading = before

    methods["get_fact"] = get_fact
    for name in ("run_shell_command", "put_file", "rsync"):
        methods[name] = _forgetting(ahead, getattr(host, name))


def _forgetting(ahead: _Ahead, method: Callable[..., Any]) -> Callable[..., Any]:
    """The same, after which nothing that was read counts any more, unless a fact is being read.

    A connection that ends meanwhile fails this host alone: pyinfra stops the whole run on EOFError,
    which is what paramiko raises then.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        if not ahead.reading:
            ahead.known.clear()
        try:
            return method(*args, **kwargs)
        except EOFError as error:
            raise ConnectionResetError("the connection was lost") from error

    return call


def foresee(host: Host, body: Callable[..., Iterable[Any]], *args: Any, **kwargs: Any) -> None:
    """Note what an operation asks first, by running its body that far.

    Nothing is done then but what a dry run does too. Where the changes are looked for now anyway,
    nothing is foreseen.
    """
    ahead = _hosts.get(host)
    if ahead is None or host.state.should_check_for_changes():
        return
    own = {key: value for key, value in kwargs.items() if key != "name" and key[0] != "_"}
    ahead.foreseeing = True
    try:
        next(iter(body(*args, **own)), None)
    except _Foreseen:
        pass
    except Exception:  # noqa: S110 (it will say so when it runs)
        pass
    finally:
        ahead.foreseeing = False


def read(host: Host) -> None:
    """Read everything that was foreseen. What can not be read so is read when it is asked for."""
    ahead = _hosts.get(host)
    if ahead is None or not ahead.questions or host.state.print_fact_output:
        return
    asked: dict[str, FactBase[Any]] = {}
    commands: list[str] = []
    arguments: dict[str, Any] = {}
    for key, question in ahead.questions.items():
        fact = question.fact()
        own, arguments = _handle_fact_kwargs(
            host.state, host, question.fact, question.args, question.kwargs
        )
        command = _text(_make_command(fact.command, own))
        if sum(map(len, commands)) + len(command) < _MOST_BYTES and _is_plain(fact, own):
            asked[key] = fact
            commands.append(command)
    mark = secrets.token_hex(16)
    ahead.reading = True
    try:
        succeeded, output = host.run_shell_command(
            StringCommand(script(commands, mark)), **_for_connector(arguments)
        )
    except (OSError, SSHException):
        return  # pyinfra says so when it asks for the first
    finally:
        ahead.reading = False
    if succeeded:
        told = answers(output.stdout_lines, mark)
        for number, (key, fact) in enumerate(asked.items()):
            if number in told:
                _note(ahead, key, fact, told[number])


def _note(ahead: _Ahead, key: str, fact: FactBase[Any], lines: list[str]) -> None:
    try:
        ahead.known[key] = fact.process(lines) if lines else fact.default()
    except Exception:
        ahead.known.pop(key, None)  # whoever asks for it is told what is wrong


def _is_plain(fact: FactBase[Any], own: dict[str, Any]) -> bool:
    """Whether a fact is only a command, without conditions that pyinfra would look at before, and
    is true a second later too."""
    if fact.shell_executable or getattr(fact, "of_the_moment", False):
        return False
    return not _make_command(fact.requires_command, own)


def _text(command: str | StringCommand) -> str:
    return command if isinstance(command, str) else str(command.get_raw_value())


def _for_connector(arguments: Mapping[str, Any]) -> dict[str, Any]:
    from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS

    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}


def script(commands: Sequence[str], mark: str) -> str:
    """Shell script that runs all commands at the same time, and tells each one's output and exit
    status after a line with `mark`."""
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
