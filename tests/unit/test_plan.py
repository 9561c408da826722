"""How a plan ends, and how a server is reached."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmhost.cli.plan import exit_status
from llmhost.cli.remote import ssh_address
from llmhost.inventory.ssh import ssh_config
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


def test_inventory_data_goes_before_the_ssh_config_it_names(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("Host *\n  Port 2222\n")
    data = {"ssh_hostname": "192.0.2.1", "ssh_user": "admin", "ssh_config_file": str(own)}
    lines = ssh_config("llm", data, tmp_path).splitlines()
    assert lines[0] == "Host llm"
    assert lines.index("  HostName 192.0.2.1") < lines.index(f"Include {own}")
    assert "  Port 22" not in lines


def test_host_that_is_cut_off_is_given_up_after_a_minute(tmp_path: Path) -> None:
    """As OpenSSH itself reads the file; its default is to wait until TCP gives up."""
    config = tmp_path / "config"
    config.write_text(ssh_config("llm", {"ssh_hostname": "192.0.2.1"}, tmp_path))
    command = ["ssh", "-G", "-F", str(config), "llm"]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in read.splitlines() if " " in line)
    assert int(found["serveraliveinterval"]) * int(found["serveralivecountmax"]) == 60


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
