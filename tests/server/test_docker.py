"""Docker Engine of a provisioned server."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from llmhost.checks.applies import does_not_apply
from llmhost.checks.command_log import guard, unit
from llmhost.checks.nvidia import on_wsl
from llmhost.settings import Settings


@pytest.fixture(scope="module")
def engine(host: Any) -> dict[str, Any]:
    """The output of docker info."""
    info: dict[str, Any] = json.loads(host.check_output("docker info --format '{{json .}}'"))
    return info


@pytest.fixture(scope="module")
def listeners(host: Any) -> list[str]:
    """The output of ss."""
    return list(host.check_output("ss -Hltnp").splitlines())


@pytest.fixture(scope="module")
def published(host: Any) -> list[dict[str, str]]:
    """Bindings of the ports of all running containers."""
    shown = "docker ps --quiet | xargs -r docker inspect --format '{{json .NetworkSettings.Ports}}'"
    ports = map(json.loads, host.check_output(shown).splitlines())
    return [each for port in ports for bindings in port.values() for each in bindings or ()]


def test_engine_runs_now_and_at_boot(host: Any) -> None:
    assert unit(host, "docker") == "active, enabled"


def test_compose_and_buildx_are_installed(engine: dict[str, Any]) -> None:
    plugins = {each["Name"]: each["Version"] for each in engine["ClientInfo"]["Plugins"]}
    assert plugins.get("compose", "").lstrip("v").partition(".")[0] in ("2", "5")
    assert plugins.get("buildx"), "buildx"


def test_daemon_runs_the_declared_configuration(engine: dict[str, Any], settings: Settings) -> None:
    declared = settings.docker.daemon_config()
    assert engine["LoggingDriver"] == declared["log-driver"]
    assert engine["LiveRestoreEnabled"] is declared["live-restore"]
    assert engine["DockerRootDir"] == declared["data-root"]
    pools = [pool["Base"] for pool in engine["DefaultAddressPools"]]
    assert pools == [pool["base"] for pool in declared["default-address-pools"]]
    mirrors = {mirror.rstrip("/") for mirror in engine["RegistryConfig"]["Mirrors"] or []}
    # A deploy leaves keys alone that are not declared.
    assert {mirror.rstrip("/") for mirror in settings.docker.registry_mirrors} <= mirrors


def test_images_are_in_the_declared_directory(
    host: Any, engine: dict[str, Any], settings: Settings
) -> None:
    if not settings.docker.containerd_root:
        does_not_apply("docker_data_root is Docker's default")
    if "io.containerd.snapshotter" not in json.dumps(engine["DriverStatus"]):
        does_not_apply("Docker's own store is in its directory")
    dump = host.check_output("containerd config dump").splitlines()
    (root,) = [line for line in dump if line.startswith("root = ")]
    assert root[7:].strip("\"'") == settings.docker.containerd_root


def test_daemon_was_started_after_its_configuration_changed(host: Any) -> None:
    shown = "systemctl show --timestamp=us+utc -P ExecMainStartTimestamp docker.service"
    moment = datetime.strptime(host.check_output(shown)[4:], "%Y-%m-%d %H:%M:%S.%f UTC")
    started = moment.replace(tzinfo=UTC).timestamp()
    changed = int(host.check_output("stat -c %Z /etc/docker/daemon.json"))
    assert started >= changed


def test_every_declared_key_is_in_the_file(host: Any, settings: Settings) -> None:
    file = json.loads(host.file("/etc/docker/daemon.json").content_string)
    declared = settings.docker.daemon_config()
    assert {key: file.get(key) for key in declared} == declared


def test_api_is_for_root_on_the_host_only(
    host: Any, listeners: list[str], published: list[dict[str, str]]
) -> None:
    socket = "/run/docker.sock"
    assert host.file(socket).is_socket
    assert guard(host, socket) in ("root:docker 0660", "root:root 0660")
    # Without the userland proxy, it holds the published ports.
    ports = {each["HostPort"] for each in published}
    places = [line.split()[3] for line in listeners if "dockerd" in line]
    assert [each for each in places if each.rpartition(":")[2] not in ports] == []


def test_no_port_is_published_beyond_loopback(
    listeners: list[str], published: list[dict[str, str]]
) -> None:
    lines = [line for line in listeners if "docker-proxy" in line or "dockerd" in line]
    places = [line.split()[3] for line in lines] + [each["HostIp"] for each in published]
    assert [each for each in places if not each.startswith(("127.", "[::1]", "::1"))] == []


def test_daemon_is_hardened(host: Any, engine: dict[str, Any], settings: Settings) -> None:
    if settings.system.hardening == "off":
        does_not_apply("system_hardening is off")
    wanted: dict[str, Any] = {"no-new-privileges": True}
    filters = host.file("/proc/sys/net/bridge/bridge-nf-call-iptables").exists
    if filters and not on_wsl(host):
        wanted |= {"icc": False, "userland-proxy": False}
    file = json.loads(host.file("/etc/docker/daemon.json").content_string)
    own = settings.docker.daemon_options
    wanted = {key: own.get(key, value) for key, value in wanted.items()}
    assert {key: file.get(key) for key in wanted} == wanted
    assert ("name=no-new-privileges" in engine["SecurityOptions"]) is wanted["no-new-privileges"]


def test_containers_on_the_default_bridge_are_apart(host: Any) -> None:
    file = json.loads(host.file("/etc/docker/daemon.json").content_string)
    if file.get("icc") is not False:
        does_not_apply("icc is not switched off here")
    option = '{{index .Options "com.docker.network.bridge.enable_icc"}}'
    if host.check_output(f"docker network inspect bridge --format '{option}'") != "false":
        # moby, daemon_unix.go: initNetworkController
        pytest.skip("not checked: Docker applies it when it starts without running containers")
    rules = host.check_output("iptables-save -t filter")
    # Since Docker 28 in a chain of its own.
    assert re.search("^-A [A-Z-]+ -i docker0 -o docker0 -j DROP$", rules, re.MULTILINE)


def test_networks_of_the_stack_publish_on_loopback(host: Any, settings: Settings) -> None:
    label = f"label=com.docker.compose.project={settings.stack.project}"
    ids = host.check_output(f"docker network ls --quiet --filter {label}").split()
    if not ids:
        does_not_apply("the stack has no network")
    networks = json.loads(host.check_output(f"docker network inspect {' '.join(ids)}"))
    option = "com.docker.network.bridge.host_binding_ipv4"
    assert {network["Options"].get(option) for network in networks} == {"127.0.0.1"}


def test_pinned_version_is_installed_and_held(host: Any, settings: Settings) -> None:
    if settings.docker.version is None:
        does_not_apply("no version is pinned")
    package = "docker-ce" if settings.docker.source == "docker" else "docker.io"
    assert host.package(package).version == settings.docker.version
    assert package in host.check_output("apt-mark showhold").split()
