"""Facts that are read ahead are those that would have been read, and count until a change.

In processes of their own: pyinfra's connectors patch threads.
"""

import json
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

_ANSWERS = """
import json, subprocess, sys
from gevent import monkey
monkey.patch_all()
from llmhost.operations.fact_prefetch import answers, script
found = []
for command in json.loads(sys.argv[1]):
    alone = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    found.append([alone.returncode, alone.stdout.splitlines()])
text = script(json.loads(sys.argv[1]), "mark")
together = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
print(json.dumps([found, answers(together.splitlines(), "mark")]))
"""

_COMMANDS = [
    "echo one; echo two",
    "printf 'no end of line'",
    "printf 'empty line at the end\\n\\n'",
    "true",
    "echo",
    "echo 'it'\\''s \"quoted\" $HOME `id`'",
    "echo seen; exit 3",
    "cat; echo after the end of input",
    "sleep 0.3; echo late; echo error >&2",
    'for each in 1 2; do\n  echo "$each"\ndone',
    "exit 0",
    "echo 'no end of a quotation",
]

_DEPLOY = """
from pyinfra import host, state
from llmhost.system.files import File
from llmhost.operations.pyinfra_patches import patch_run
from llmhost.operations import files, lock

patch_run(state, host)

def count(name):
    before = getattr(host.connector, name)
    def counted(*args, **kwargs):
        with open("{place}/commands", "a") as log:
            print(name, file=log)
        return before(*args, **kwargs)
    setattr(host.connector, name, counted)

count("run_shell_command")
lock.locked("{place}/state", name="Lock")
"""

_FILE = """
files.present(
    File("{place}/{file}", "content", owner="{owner}", group="{group}"), name="{number} {file}"
)
"""


def test_answers_are_those_of_each_command_alone() -> None:
    arguments = [sys.executable, "-c", _ANSWERS, json.dumps(_COMMANDS)]
    said = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    alone, together = json.loads(said)
    succeeded = {str(n): lines for n, (status, lines) in enumerate(alone) if status == 0}
    assert together == succeeded and len(succeeded) == len(_COMMANDS) - 2


_MERGED = """
import subprocess, sys
from gevent import monkey
monkey.patch_all()
from llmhost.facts.apt import InstalledPackages
from llmhost.facts.files import PathStates
from llmhost.facts.hostname import Hostname
from llmhost.operations.fact_prefetch import ask, merged

def lines(question):
    ran = subprocess.run(["sh", "-c", question.command], capture_output=True, text=True)
    return ran.stdout.splitlines()

place = sys.argv[1]
questions = [
    ask(InstalledPackages, packages=["dpkg", "sed"]),
    ask(PathStates, paths=[f"{place}/a"]),
    ask(Hostname),
    ask(InstalledPackages, packages=["sed", "no-such-package"]),
    ask(InstalledPackages, packages=[]),
    ask(PathStates, paths=[f"{place}/a"], under=place),
    ask(PathStates, paths=[f"{place}/b", "/nonexistent"]),
]
found = {}
for question, answered in merged(questions):
    output = lines(question)
    found |= {id(each): each.value(output) for each in answered}
alone = [question.fact().process(lines(question)) for question in questions]
assert [found[id(question)] for question in questions] == alone, (found, alone)
assert alone[0].packages["sed"].present and alone[1] and len(alone[5]) == 2, alone
print([len(answered) for _, answered in merged(questions)])
"""


def test_lists_are_read_together_and_each_operation_gets_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    command = [sys.executable, "-c", _MERGED, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[3, 2, 1, 1]\n", "")


def run(place: Path, *names: str) -> tuple[dict[str, list[str]], int]:
    """Deploy these files on this machine; changes by operation, and how many commands it took."""
    owner = {"place": place, "owner": place.owner(), "group": place.group()}
    text = _DEPLOY.format(**owner) + "".join(
        _FILE.format(number=number, file=each, **owner) for number, each in enumerate(names)
    )
    (place / "deploy.py").write_text(text)
    (place / "commands").write_text("")
    command = [str(Path(sys.executable).with_name("pyinfra")), "@local", str(place / "deploy.py")]
    result = subprocess.run(
        [*command, "-y", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    changed = {each["name"]: each["success"] for each in report["results"]["operations"]}
    return changed, (place / "commands").read_text().count("run_shell_command")


@pytest.mark.usefixtures("own_machine")
def test_facts_are_read_together_and_again_after_a_change(tmp_path: Path) -> None:
    first, commands = run(tmp_path, "a", "b", "c")
    assert [name for name, hosts in first.items() if hosts] == ["0 a", "1 b", "2 c"]
    assert commands == 1 + 3 + 2, "one read ahead, three changes, two facts after the first"
    again, commands = run(tmp_path, "a", "b", "c")
    assert not any(again.values()) and commands == 1
    (tmp_path / "b").write_text("drifted")
    healed, commands = run(tmp_path, "a", "b", "c")
    assert [name for name, hosts in healed.items() if hosts] == ["1 b"]
    assert commands == 1 + 1 + 1


@pytest.mark.usefixtures("own_machine")
def test_what_a_change_made_is_seen_by_the_next_operation(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("other")
    changed, _ = run(tmp_path, "a", "a")
    assert changed["0 a"] == ["@local"] and changed["1 a"] == []


# A host that is not real: `answer` decides what it says to a command.
_HOST = """
from gevent import monkey
monkey.patch_all()
from types import SimpleNamespace
from llmhost.facts.hostname import Hostname
from llmhost.facts.hosts_file import HostsFile
from llmhost.facts.system import HostTime
from llmhost.operations.fact_prefetch import Prefetch, ask

ours, other = {"_sudo": True}, {"_sudo": True, "_sudo_user": "other"}
operations = {
    "first": (ours, ask(Hostname)),
    "as another": (other, ask(HostsFile)),
    "of the moment": (ours, ask(HostTime)),
}
prefetch, sent, alone = Prefetch(), [], []
for name, (_, question) in operations.items():
    prefetch.expect(name, [question])

def run_shell_command(command, **connection):
    sent.append((str(command), connection))
    mark = str(command).rsplit("\\\\n", 2)[1].split()[0]
    return answer(mark)

class Host(SimpleNamespace):
    __hash__ = object.__hash__

host = Host(run_shell_command=run_shell_command, current_op_global_arguments=ours,
            get_fact=lambda fact, **arguments: alone.append(fact.__name__))
known = {name: SimpleNamespace(global_arguments=own) for name, (own, _) in operations.items()}
host.state = SimpleNamespace(print_fact_output=False, ops={host: known})

def said(*lines, succeeded=True, stderr=""):
    return succeeded, SimpleNamespace(stdout_lines=lines, stderr=stderr)
"""

_ASK = """
failure = prefetch.read(host)
value = prefetch.value(host, ask(Hostname))
host.current_op_global_arguments = other
prefetch.value(host, ask(Hostname))
[(command, connection)] = sent
assert connection == ours
asked = [word for word in ("uname -n", "/etc/hosts", "date +%s") if word in command]
print([asked, value and value.now, alone, failure])
"""


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            "lambda mark: said(f'{mark} 0 0', 'own', '', f'{mark} end')",
            [["uname -n"], "own", ["Hostname"], ""],
        ),
        (
            "lambda mark: said(succeeded=False, stderr='mktemp: no space')",
            [["uname -n"], None, ["Hostname", "Hostname"], "mktemp: no space"],
        ),
        (
            "lambda mark: (_ for _ in ()).throw(OSError('no route'))",
            [
                ["uname -n"],
                None,
                ["Hostname", "Hostname"],
                "no route",
            ],
        ),
    ],
)
def test_what_is_not_prefetched_is_asked_later_and_why_is_known(
    answer: str, found: list[Any]
) -> None:
    """Facts that are asked as another user, or are only true at the moment, are asked alone."""
    program = f"{_HOST}\nanswer = {answer}\n{_ASK}"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert literal_eval(ran.stdout) == found
