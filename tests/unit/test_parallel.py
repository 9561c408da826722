"""What one host's failure does to the others of a command: nothing. pyinfra's own connector runs
the commands, on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SITE = """
clients = [{"name": "app", "sha256": "ab" * 32}]
hosts = (["@local"], {"services": ["chroma"], "gateway_tls": "off", "api_clients": clients})
"""

# The second host is a copy of the first one, because only one can be @local.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import copy, json, sys
from paramiko.hostkeys import InvalidHostKey
from pyinfra.api.exceptions import ConnectError
from llmhost.cli import session
from llmhost.cli.parallel import Answer, each_of, run_on_each

def broken(kind):
    raise {
        "connect": ConnectError("no way"),
        "key": InvalidHostKey("a line", ValueError("bad")),
        "lost": EOFError("gone"),
        "text": UnicodeDecodeError("utf-8", b"\\\\xff", 0, 1, "invalid start byte"),
        "shape": KeyError("now"),
    }[kind]

with session.connected(sys.argv[1], []) as (state, _):
    [good] = state.active_hosts
    bad = copy.copy(good)
    bad.name = "bad"
    if sys.argv[2] == "output":
        commands = {good: "echo '{}'", bad: "echo '{\\"cut\\": '"}
        found = run_on_each(commands, 20, json.loads)
    else:
        ask = lambda host: broken(sys.argv[2]) if host is bad else Answer("{}")
        found = each_of({good: None, bad: None}, ask, 20)
print(json.dumps({name: [each.output, each.error] for name, each in found.items()}))
"""


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("connect", "the host could not be asked: ConnectError: no way"),
        ("key", "the host could not be asked: InvalidHostKey: "),
        ("lost", "the connection was lost: gone"),
        ("text", "the host could not be asked: UnicodeDecodeError: "),
        ("shape", "the host could not be asked: KeyError: 'now'"),
        ("output", "its answer cannot be read: Expecting value: line 1 column 9"),
    ],
)
def test_failure_of_one_host_leaves_the_others(kind: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SITE)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "site.py"), kind]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found.pop("@local") == ["{}", ""]
    [(output, error)] = found.values()
    assert output == "" and error.startswith(why)
