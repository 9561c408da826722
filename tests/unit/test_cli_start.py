"""Commands are imported when they run, and say before that what they do."""

import json
import subprocess
import sys

import pytest

from llmhost.cli.app import PLACES

_HELP = """
import json
from llmhost.cli.app import PLACES, command
print(json.dumps({name: command(name).help.partition("\\n\\n")[0] for name in PLACES}))
"""

_LOADED = """
import json, sys
from llmhost.cli.__main__ import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_one_sentence_is_the_first_of_the_commands_own_help() -> None:
    ran = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {name: place.help for name, place in PLACES.items()}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["doctor"], ["key", "--help"], ["key", "new", "web"], ["tls", "--help"]],
)
def test_command_that_needs_no_host_loads_nothing_that_reaches_one(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & {"gevent", "paramiko", "pyinfra", "pyinfra_cli"}


_GEVENT = """
import socket
from importlib import metadata
from llmhost.cli.gevent_start import use_gevent
own, entry_points = socket.socket, metadata.entry_points
scans = []
metadata.entry_points = lambda **group: scans.append(1) or entry_points(**group)
use_gevent()
use_gevent()
assert socket.socket is not own and socket.socket.__module__.startswith("gevent.")
assert [each.name for each in metadata.entry_points(group="console_scripts", name="pyinfra")]
import pyinfra_cli.main
from pyinfra.api.connectors import get_all_connectors
assert get_all_connectors()["ssh"]
print(scans)
"""


def test_entry_points_of_installed_packages_are_read_once() -> None:
    ran = subprocess.run([sys.executable, "-c", _GEVENT], capture_output=True, text=True)
    assert ran.stdout == "[1]\n", ran.stderr


_PYINFRA = """
from importlib import metadata
entry_points = metadata.entry_points
scans = []
metadata.entry_points = lambda **group: scans.append(1) or entry_points(**group)
import {program}
from pyinfra.api.connectors import get_all_connectors
assert get_all_connectors()["ssh"]
print(len(scans))
"""


def test_pyinfra_reads_them_only_to_find_llmhosts_plugin() -> None:
    code = _PYINFRA.format(program="pyinfra_cli.main")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "2\n", ran.stderr


def test_other_programs_with_gevent_read_them_as_often_as_they_like() -> None:
    code = _PYINFRA.format(program="gevent.monkey as it; it.patch_all()")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(ran.stdout) > 20, ran.stderr
