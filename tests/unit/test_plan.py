"""How a plan ends, and how a server is reached."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmhost.cli.plan import exit_status
from llmhost.cli.remote import ssh_address
from llmhost.inventory.ssh import ssh_config, ssh_target
from llmhost.status.plan import HostPlan


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["converged"], 0),
        (["converged", "drift"], 2),
        (["drift", "refused"], 1),
        (["converged", "unreachable"], 1),
        (["failed"], 1),
    ],
)
def test_worst_host_decides_the_exit_status(statuses: list[str], status: int) -> None:
    plans = [HostPlan("host", each) for each in statuses]  # type: ignore[arg-type]
    assert exit_status(plans) == status


def read_by_openssh(directory: Path, name: str, data: Mapping[str, object], ask: str = "") -> Any:
    """What OpenSSH would do for a host of the inventory, or for another one that it is asked for
    meanwhile."""
    config = directory / "config"
    config.write_text(ssh_config(name, data, directory))
    command = ["ssh", "-G", "-F", str(config), ask or ssh_target(name, data)]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in read.splitlines() if " " in line)


def test_inventory_data_goes_before_the_ssh_config_it_names(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("Host *\n  Port 2222\n  User other\n  HostName 192.0.2.1\n")
    data = {"ssh_hostname": "llm.example", "ssh_user": "admin", "ssh_config_file": str(own)}
    found = read_by_openssh(tmp_path, "llm", data)
    assert (found["hostname"], found["port"], found["user"]) == ("192.0.2.1", "2222", "admin")
    assert read_by_openssh(tmp_path, "llm", {**data, "ssh_port": 22})["port"] == "22"


def test_host_that_is_cut_off_is_given_up_after_a_minute(tmp_path: Path) -> None:
    """As OpenSSH itself reads the file; its default is to wait until TCP gives up."""
    found = read_by_openssh(tmp_path, "llm", {"ssh_hostname": "192.0.2.1"})
    assert found["hostname"] == "192.0.2.1"
    assert int(found["serveraliveinterval"]) * int(found["serveralivecountmax"]) == 60


def test_jump_host_has_its_own_section_of_the_ssh_config(tmp_path: Path) -> None:
    """OpenSSH starts itself with the same file to reach it."""
    own = tmp_path / "own"
    own.write_text("Host jump\n  HostName 192.0.2.9\n  Port 2200\nHost llm\n  ProxyJump jump\n")
    data = {"ssh_config_file": str(own), "ssh_user": "admin"}
    assert read_by_openssh(tmp_path, "llm", data)["proxyjump"] == "jump"
    jump = read_by_openssh(tmp_path, "llm", data, ask="jump")
    assert (jump["hostname"], jump["port"]) == ("192.0.2.9", "2200")
    assert jump["user"] != "admin"


def test_host_name_of_an_inventory_may_be_one_of_an_ssh_config(tmp_path: Path) -> None:
    """As it may for pyinfra."""
    own = tmp_path / "own"
    own.write_text("Host gpu\n  HostName 192.0.2.5\n  Port 2222\nHost llm\n  HostName 192.0.2.6\n")
    data = {"ssh_hostname": "gpu", "ssh_config_file": str(own)}
    found = read_by_openssh(tmp_path, "llm", data)
    assert (found["hostname"], found["port"]) == ("192.0.2.5", "2222")
    assert ssh_address("llm", data) == "192.0.2.5"


@pytest.mark.parametrize("directory", ["my keys", "100%", 'a"b', "[x]"])
def test_paths_are_one_word_each(directory: str, tmp_path: Path) -> None:
    place = tmp_path / directory
    place.mkdir()
    (place / "own").write_text("Host *\n  Port 2222\n")
    names = {"ssh_key": "key", "ssh_known_hosts_file": "known", "ssh_config_file": "own"}
    data = {key: str(place / name) for key, name in names.items()}
    found = read_by_openssh(place, "llm", data)
    assert found["port"] == "2222"
    for option, name in (("identityfile", "key"), ("userknownhostsfile", "known")):
        assert found[option].replace("%%", "%") == str(place / name)


def test_key_of_the_inventory_is_the_only_one_that_is_offered(tmp_path: Path) -> None:
    """A server ends the connection after a few keys, and an agent may have many."""
    key = {"ssh_key": "~/.ssh/llm"}
    assert read_by_openssh(tmp_path, "llm", key)["identitiesonly"] == "yes"
    assert read_by_openssh(tmp_path, "llm", {})["identitiesonly"] == "no"


@pytest.mark.parametrize(("checking", "read"), [("off", "false"), ("yes", "true")])
def test_host_keys_are_checked_as_the_inventory_says(
    checking: str, read: str, tmp_path: Path
) -> None:
    data = {"ssh_strict_host_key_checking": checking}
    assert read_by_openssh(tmp_path, "llm", data)["stricthostkeychecking"] == read


def test_path_of_a_socket_is_short_enough() -> None:
    """Also in the directory for temporary files of macOS, which has 49 characters; OpenSSH adds 17
    to the path while it creates the socket."""
    directory = Path("/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/llmhost-abcd1234")
    [line] = [
        each for each in ssh_config("llm", {}, directory).splitlines() if "ControlPath" in each
    ]
    path = line.split('"')[1].replace("%C", "0" * 40)
    assert len(path) + 17 < 104


def test_mistakes_are_told_before_any_host_is_called(tmp_path: Path) -> None:
    inventory = tmp_path / "site.py"
    # Nothing listens on this port of the loopback: a plan that connects first says so instead.
    data = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "docker_data_rot": "/x"}
    inventory.write_text(f"hosts = [('llm', {data!r})]\n")
    command = [str(Path(sys.executable).with_name("llmhost")), "plan", str(inventory)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "llm: docker_data_rot: unknown key; did you mean docker_data_root?" in result.stderr
    assert "connect" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_llm_server_without_services_is_refused_before_it_is_called(tmp_path: Path) -> None:
    inventory = tmp_path / "site.py"
    bare = {"ssh_hostname": "127.0.0.1", "ssh_port": 1}
    inventory.write_text(f"hosts = [('one', {bare!r}), ('two', {bare!r})]\n")
    command = [str(Path(sys.executable).with_name("llmhost")), "plan", str(inventory)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    for host in ("one", "two"):
        assert f"{host}: services: is empty, and this host is an LLM server" in result.stderr


def test_old_name_of_an_option_is_one_warning(tmp_path: Path) -> None:
    inventory = tmp_path / "site.py"
    source = {"name": "m", "source": "https://mirror.example/m.gguf", "sha256": "ab" * 32}
    data = {**SERVED, "services": ["llamacpp"], "models": [source | {"quantisation": "Q8_0"}]}
    inventory.write_text(f"hosts = [('llm', {data!r})]\n")
    command = [str(Path(sys.executable).with_name("llmhost")), "plan", str(inventory)]
    result = subprocess.run(command, capture_output=True, text=True)
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "models[0].quantisation: was renamed to" in warnings[0]
    assert "127.0.0.1" in result.stdout  # the plan went on to the host


SERVED = {
    "ssh_hostname": "127.0.0.1",
    "ssh_port": 1,
    "services": ["redis"],
    "api_clients": [{"name": "app", "sha256": "cd" * 32}],
}


def test_host_that_does_not_answer_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    inventory = tmp_path / "site.py"
    inventory.write_text(f"hosts = [('llm', {SERVED!r})]\n")
    command = [str(Path(sys.executable).with_name("llmhost")), "plan", str(inventory), "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    (host,) = json.loads(result.stdout)["hosts"]
    assert host["status"] == "unreachable"
    assert "127.0.0.1" in host["errors"][0]
    assert "Traceback" not in result.stderr


def test_address_of_an_alias_is_that_of_its_ssh_config(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("Host far\n  HostName 192.0.2.9\n")
    assert ssh_address("far", {"ssh_config_file": str(own)}) == "192.0.2.9"
    assert ssh_address("far", {"ssh_hostname": "llm.example"}) == "llm.example"
    assert ssh_address("far", {}) == "far"
