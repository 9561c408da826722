"""Groups that pyinfra would ignore or read in part are refused, by llmhost and by pyinfra alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmhost.inventory.groups import group_mistakes

ROOT = Path(__file__).parents[2]

# name → source, and what is said about it.
FILES = {
    "mark": (b"\xef\xbb\xbfllm_servers = ['a']\n", "begins with a byte order mark; save it as"),
    "latin": (
        b"# caf\xe9\nllm_servers = ['a']\n",
        "is not a text file; give the inventory file, saved as",
    ),
    "zeros": (b"\0\0", "cannot be read: source code string cannot contain null bytes"),
    "open": (b"llm_servers = [\n", "cannot be read: line 1: '[' was never closed"),
    "ends": (b"raise SystemExit(3)\n", "cannot be read: it ends the program (sys.exit)"),
    "raises": (b"1 / 0\n", "cannot be read: ZeroDivisionError: division by zero"),
    "none": (b"llm_servers = [('a', None)]\n", "cannot be read: a group is a list of hosts"),
    "nothing": (b"llm_servers = ()\n", "cannot be read: a group is a list of hosts"),
    "mapping": (b"llm_servers = {'a': {}}\n", "llm_servers: is a mapping; a group is a list of"),
    "lists": (b"llm_servers = [['a', {}]]\n", "llm_servers: has something that is not a host; a"),
    "wildcard": (
        b"llm_servers = ['llm-*', 'llm-1']\n",
        "'llm-*' is not the name of a host; write it",
    ),
    "brackets": (b"llm_servers = ['[fd00::5]']\n", "'[fd00::5]' is not the name of a host; write"),
    "nameless": (b"llm_servers = ['']\n", "llm_servers: '' is not the name of a host; write it"),
    "networks": (b"NETS = ['10.0.0.0/8']\n", "if NETS is not a group, rename it to _NETS"),
    "number": (b"llm_servers = [('a', {1: 2})]\n", "a: 1 is not the name of an option"),
    "twice": (
        b"llm_servers = [('a', {'ssh_hostname': '1.2.3.4'}), ('a', {'ssh_hostname': '1.2.3.5'})]\n",
        "a: is declared twice, with a different ssh_hostname; give each host a name of its own",
    ),
}

_READ = """
import json, sys
from llmhost.cli.inventory_file import InventoryError, read_inventory
found = {}
for name in sys.argv[1:]:
    try:
        read_inventory(name + ".py")
    except InventoryError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_broken_inventory_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, (source, _) in FILES.items():
        (tmp_path / f"{name}.py").write_bytes(source)
    command = [sys.executable, "-c", _READ, *FILES]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(ran.stdout)
    assert found.keys() == FILES.keys()
    assert {name: said for name, said in found.items() if FILES[name][1] not in said} == {}


def test_file_of_another_format_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("llm_servers:\n  a:\n")
    command = [sys.executable, "-m", "llmhost.cli", "deploy", "site.yaml"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == (
        "error: site.yaml cannot be read: line 1: invalid syntax; an inventory is a Python file\n"
    )


def test_what_an_inventory_prints_is_not_the_output_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text("print('read')\nllm_servers = ['a']\n")
    command = [sys.executable, "-m", "llmhost.cli", "key", "list", "site.py", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(ran.stdout) and "read" in ran.stderr


def test_pyinfra_refuses_a_host_that_is_declared_twice(tmp_path: Path) -> None:
    for name in ("config.py", "deploy.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "site.py").write_bytes(FILES["twice"][0])
    command = [sys.executable, "-m", "pyinfra", "site.py", "deploy.py", "-y"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1 and FILES["twice"][1] in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "groups",
    [
        {"llm_servers": ["a", ("b", {})]},
        {"llm_servers": [("a", {"x": 1})], "gateways": ["a", ("a", {"x": 1, "y": 2})]},
        {"llm_servers": (["a.example.com", "@docker/debian:12", "10.0.0.1", "fe80::1"], {"x": 1})},
    ],
    ids=["names", "same-data-twice", "connectors-and-addresses"],
)
def test_good_groups_have_no_mistakes(groups: dict[str, object]) -> None:
    assert [*group_mistakes({**groups, "_networks": ["10.0.0.0/8"]}, groups)] == []


def test_data_of_a_host_is_not_repeated() -> None:
    hosts = [("a", {"ssh_password": "one"}), ("a", {"ssh_password": "two"})]
    (sentence,) = group_mistakes({"llm_servers": hosts}, {"llm_servers": hosts})
    assert "one" not in sentence.split() and "two" not in sentence
