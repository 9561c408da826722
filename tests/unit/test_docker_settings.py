"""Options of Docker and of the system."""

import base64
import os
import subprocess
from json import loads
from pathlib import Path
from typing import Any

import pytest

from llmhost.docker.daemon_json import hardened, restart_sentences
from llmhost.facts.docker import DaemonConfig, DaemonFiles
from llmhost.inventory.problem import SettingsError
from llmhost.inventory.reader import read_settings
from llmhost.operations import docker
from llmhost.resources import script_text
from llmhost.template import render


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("docker_daemon_options", {"hosts": ["tcp://0.0.0.0:2375"]}),
        ("docker_daemon_options", {"iptables": False}),
        ("docker_daemon_options", {"firewall-backend": "nftables"}),
        ("docker_repository_key_fingerprint", "9DC8 5822"),
        ("docker_repository_url", "ftp://e.invalid"),
        ("docker_source", "snap"),
        ("docker_data_root", "relative/path"),
        ("system_timezone", "Asia/Pyongyong"),
        ("system_sysctl", {"somaxconn": 1}),
        ("system_sysctl", {"../../etc/passwd": 1}),
        ("system_sysctl", {"net/../../../etc/passwd": 1}),
    ],
)
def test_impossible_option_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({key: value})
    assert [problem.key.startswith(key) for problem in error.value.problems] == [True]


def test_networks_larger_than_their_pool_are_refused() -> None:
    with pytest.raises(SettingsError):
        read_settings({"docker_address_pool": "10.9.0.0/20", "docker_address_pool_prefix": 18})


def test_nothing_is_published_to_the_network_by_default() -> None:
    config = read_settings({}).docker.daemon_config()
    assert config["ip"] == "127.0.0.1"
    assert list(config["default-network-opts"]["bridge"].values()) == ["127.0.0.1"]


def test_daemon_options_override() -> None:
    options: dict[str, Any] = {"docker_daemon_options": {"live-restore": False, "mtu": 1400}}
    config = read_settings(options).docker.daemon_config()
    assert (config["live-restore"], config["mtu"], config["log-driver"]) == (False, 1400, "local")


def test_log_options_are_strings() -> None:
    options = read_settings({}).docker.daemon_config()["log-opts"]
    assert options == {"max-size": "50m", "max-file": "3"}


def test_kernel_parameters_of_the_site_override() -> None:
    parameters = read_settings({"system_sysctl": {"vm.max_map_count": 7}}).system.kernel_parameters
    assert parameters["vm.max_map_count"] == "7" and list(parameters) == sorted(parameters)


def test_parameters_of_hardening_yield_to_those_of_the_site() -> None:
    system = read_settings({"system_sysctl": {"kernel.kptr_restrict": 0}}).system
    assert "kernel.kptr_restrict" not in system.hardened_parameters
    assert system.hardened_parameters["net.ipv6.conf.all.accept_redirects"] == "0"
    assert read_settings({"system_hardening": "off"}).system.hardened_parameters == {}
    strict = read_settings({"system_hardening": "cis"}).system.hardened_parameters
    assert (
        strict["kernel.kptr_restrict"] == "2" and strict.keys() > system.hardened_parameters.keys()
    )


# What Docker, CUDA, hosts with several networks, and other programs depend on or set.
@pytest.mark.parametrize(
    "name", ["ip_forward", "rp_filter", "ptrace_scope", "userns", "modules_disabled", "martians"]
)
def test_hardening_leaves_parameters_alone_that_work_depends_on(name: str) -> None:
    strict = read_settings({"system_hardening": "cis"}).system.hardened_parameters
    assert not any(name in each for each in strict)


@pytest.mark.parametrize("updates", [0, 1])
def test_apt_configuration_says_who_manages_it(updates: int) -> None:
    text = render("system/zz-llmhost.j2", system=read_settings({}).system, updates=updates)
    assert text.startswith("// Managed by llmhost")
    assert f'APT::Periodic::Unattended-Upgrade "{updates}";' in text
    assert 'DPkg::Lock::Timeout "300";' in text
    assert "codename=${distro_codename}-security" in text


DAEMON = {"live-restore": True}


def _fact(*words: str, config: str = "") -> DaemonFiles:
    encoded = base64.b64encode(config.encode()).decode()
    return DaemonConfig().process([encoded, "", *words])


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ([], (False, False)),
        (["running"], (True, False)),
        (["running", "bridge-filter"], (True, True)),
    ],
)
def test_what_decides_about_hardening_is_read(words: list[str], files: tuple[bool, bool]) -> None:
    found = _fact(*words, config="{}")
    assert (found.running, found.bridge_filter) == files and found.config == "{}"


def test_only_what_the_host_supports_is_hardened() -> None:
    assert hardened(DAEMON, bridge_filter=False) == {"no-new-privileges": True, **DAEMON}
    assert hardened(DAEMON, bridge_filter=True) == {
        "no-new-privileges": True,
        "icc": False,
        "userland-proxy": False,
        **DAEMON,
    }


def test_daemon_options_override_hardening() -> None:
    options = {"docker_daemon_options": {"icc": True, "no-new-privileges": False}}
    config = read_settings(options).docker.daemon_config()
    found = hardened(config, bridge_filter=True)
    assert (found["icc"], found["no-new-privileges"]) == (True, False)
    assert found["userland-proxy"] is False


def test_restart_of_the_daemon_is_announced() -> None:
    live = {"live-restore": True}
    (sentence,) = restart_sentences(live, ["log-driver"])
    assert "keep running" in sentence
    assert "reboot once" in restart_sentences(live, ["icc"])[1]
    (sentence,) = restart_sentences({}, ["icc"])
    assert "restart with it" in sentence


@pytest.mark.parametrize(
    ("listener", "free"),
    [("127.0.0.1:8081", True), ("127.0.0.1:2375", False), ("", True)],
)
def test_port_of_a_container_is_not_dockers_api(tmp_path: Path, listener: str, free: bool) -> None:
    """The script on doubles of ss, docker and systemctl."""
    line = f'LISTEN 0 4096 {listener} 0.0.0.0:* users:(("dockerd",pid=7,fd=3))' if listener else ""
    outputs = {"ss": f"{line}\nLISTEN 0 1 0.0.0.0:22 x pid=70,", "systemctl": "7", "docker": "8081"}
    for name, output in outputs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'E'\n{output}\nE\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(["sh", "-c", script_text("docker/network_api.sh")], env={"PATH": path})
    assert (ran.returncode == 0) is free


def test_port_of_a_container_that_starts_at_this_moment_is_not_dockers_api(tmp_path: Path) -> None:
    """dockerd listens on it before `docker ps` shows the container."""
    listener = 'LISTEN 0 4096 127.0.0.1:8081 0.0.0.0:* users:(("dockerd",pid=7,fd=3))'
    doubles = {
        "ss": f"echo '{listener}'",
        "systemctl": "echo 7",
        "docker": f"[ $1 = inspect ] && echo 8081; [ -e {tmp_path}/shown ] && echo c; :",
        "sleep": f": >{tmp_path}/shown",
    }
    for name, line in doubles.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(["sh", "-c", script_text("docker/network_api.sh")], env={"PATH": path})
    assert ran.returncode == 0


def test_daemon_that_does_not_answer_is_no_daemon_without_network_api(tmp_path: Path) -> None:
    for name in ("ss", "systemctl", "docker"):
        (tmp_path / name).write_text(f"#!/bin/sh\n[ {name} != docker ]\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(["sh", "-c", script_text("docker/network_api.sh")], env={"PATH": path})
    assert ran.returncode == 1


def test_key_that_ends_dockers_rules_is_removed_and_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """dockerd does not start with it and icc, and does not find that with --validate."""
    found = _fact("bridge-filter", config='{"iptables": false, "debug": true}')
    written: list[dict[str, Any]] = []
    explained: list[str] = []
    monkeypatch.setattr(docker, "get_fact", lambda *_, **__: found)
    monkeypatch.setattr(docker, "explain", explained.extend)
    monkeypatch.setattr(docker, "_install_config", lambda text, *_: written.append(loads(text)))
    list(docker.daemon._inner(DAEMON, harden=True))  # type: ignore[attr-defined]
    assert written[0]["icc"] is False and written[0]["debug"] is True
    assert "iptables" not in written[0]
    assert [each for each in explained if "iptables" in each] == [
        '/etc/docker/daemon.json has "iptables": false: Docker then makes no rules for containers,'
        " and does not start with icc; the key is removed"
    ]
