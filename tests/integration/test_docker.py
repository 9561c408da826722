"""Docker Engine on a real host; where Docker's own packages are needed, with doubles of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmhost.docker.packages import docker_repository
from llmhost.inventory.reader import read_settings
from llmhost.operations import apt, docker
from llmhost.options.docker import DOCKER_KEY
from llmhost.resources import script_text
from llmhost.system.apt_repository import Repository
from llmhost.tasks.docker import install_docker
from testbed import Client, Lan, Machine
from tests.doubles.apt_repository import DebDouble, build_repository, serving
from tests.integration.harness import converge, deploy

pytestmark = pytest.mark.machines

INSTALL = "Docker | Install Docker Engine"
CONFIGURE = "Docker | Configure the Docker daemon"
GUARD = "Docker | Keep ufw's rules for containers ahead of Docker's"
CONTAINERD = "Docker | Run containerd"
SOCKET = "Docker | Offer Docker's socket"
RUN = "Docker | Run the Docker daemon with its configuration"

# A foreign key, and one of ours with a value that must give way.
FOREIGN = {"debug": False, "shutdown-timeout": 11, "log-driver": "json-file"}

IMAGE = """
set -e
apt-get install -qy busybox-static >/dev/null
cd "$(mktemp -d)"; mkdir bin; cp /bin/busybox bin/; ln -s busybox bin/sh
tar -c bin | docker import - busybox
"""
SERVER = "busybox /bin/busybox httpd -f -p 80"


def _install(options: dict[str, Any]) -> None:
    install_docker(settings=read_settings(options))


def _options(config: dict[str, Any], owner: str) -> None:
    docker.daemon(config, owner=owner, harden=owner == "docker", name="Configure")


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Machine:
    """A machine of this module's own: its first deploy must find no Docker."""
    return lan.machine("docker")


@pytest.fixture(scope="module")
def host(machine: Machine) -> Machine:
    """The machine with Docker, installed over a daemon.json that somebody left."""
    machine.ssh("mkdir -p /etc/docker; cat > /etc/docker/daemon.json", input=json.dumps(FOREIGN))
    planned = deploy(machine, _install, {}, dry=True)
    assert planned.changed == [INSTALL, CONFIGURE, GUARD, CONTAINERD, SOCKET, RUN]
    changed = converge(machine, _install, {}).changed
    assert changed == [INSTALL, CONFIGURE, GUARD, CONTAINERD, SOCKET, RUN]
    machine.ssh(IMAGE)
    return machine


@pytest.fixture
def containers(host: Machine) -> Iterator[Machine]:
    """A web server on the default bridge (8081) and one on a network of its own (8082)."""
    host.ssh(f"docker run -d --name one -p 8081:80 {SERVER}")
    host.ssh(f"docker network create web; docker run -d --name two --net web -p 8082:80 {SERVER}")
    yield host
    host.ssh("docker rm -f one two; docker network rm web")


def _config(machine: Machine) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(machine.ssh("cat /etc/docker/daemon.json").stdout)
    return config


def _started(machine: Machine) -> str:
    return machine.ssh("systemctl show -P ExecMainStartTimestampMonotonic docker.service").stdout


def test_engine_compose_and_buildx_are_there(host: Machine) -> None:
    assert host.ssh("docker info --format '{{.LoggingDriver}} {{.LiveRestoreEnabled}}'").stdout == (
        "local true\n"
    )
    host.ssh("docker compose version && docker buildx version")
    assert host.ssh("systemctl is-enabled docker.service").stdout == "enabled\n"


def test_first_start_had_the_configuration(host: Machine) -> None:
    starts = host.ssh("journalctl -u docker.service | grep -c 'Starting up'").stdout
    assert starts == "1\n"
    # Docker's own default, 172.17.0.0/16, may be a site's network.
    assert "172.28.0.1/24" in host.ssh("ip -brief address show docker0").stdout


def test_foreign_keys_stay(host: Machine) -> None:
    config = _config(host)
    assert config["shutdown-timeout"] == 11 and config["debug"] is False
    assert config["log-driver"] == "local"
    assert host.ssh("stat -c '%a %U:%G' /etc/docker/daemon.json").stdout == "644 root:root\n"


def test_published_ports_are_for_the_host_alone(containers: Machine, lan: Lan) -> None:
    client: Client = lan.clients.get("client") or lan.client("client")
    for port in (8081, 8082):
        inside = containers.ssh(f"curl -s -o /dev/null -w '%{{http_code}}' localhost:{port}")
        assert inside.stdout == "404"
        for address in (containers.address, f"[{containers.address6}]"):
            url = f"http://{address}:{port}/"
            outside = client.run(["curl", "-s", "--max-time", "5", url], check=False)
            assert outside.returncode == 7, "the connection must be refused"


@pytest.mark.parametrize("flushed", ["", "iptables -F FORWARD; ip6tables -F FORWARD;"])
def test_firewall_stays_ahead_of_docker_when_somebody_restarts_it(
    containers: Machine, flushed: str
) -> None:
    """live-restore: the daemon inserts the rules of running containers' networks again."""
    containers.ssh(f"ip6tables -N DOCKER-USER || :; {flushed} systemctl restart docker")
    for family in ("iptables", "ip6tables"):
        rules = containers.ssh(f"{family} -S FORWARD").stdout.splitlines()
        assert rules[1] == "-A FORWARD -j DOCKER-USER", rules
        assert rules.count(rules[1]) == 1
    # Docker's default address ranges have their rules again.
    assert any("-o docker0" in rule for rule in containers.ssh("iptables -S").stdout.splitlines())


def test_killed_between_file_and_restart_is_healed_and_containers_survive(
    containers: Machine,
) -> None:
    before = _started(containers)
    age = "docker inspect -f '{{.State.StartedAt}}' one two"
    running = containers.ssh(age).stdout
    config = read_settings({}).docker.daemon_config() | {"max-concurrent-uploads": 2}
    # What a run does that is killed before it comes to the daemon.
    assert deploy(containers, _options, config, "docker").changed == ["Configure"]
    assert _started(containers) == before
    options = {"docker_daemon_options": {"max-concurrent-uploads": 2}}
    assert converge(containers, _install, options).changed == [RUN]
    assert _started(containers) != before
    assert containers.ssh(age).stdout == running
    assert containers.ssh("curl -s -o /dev/null -w '%{http_code}' localhost:8081").stdout == "404"
    # An option that is no longer declared goes; what others set stays.
    assert deploy(containers, _install, {}).changed == [CONFIGURE, RUN]
    assert "max-concurrent-uploads" not in _config(containers)
    assert _config(containers)["shutdown-timeout"] == 11


def test_containers_survive_the_arrival_of_live_restore(host: Machine) -> None:
    without = {"docker_daemon_options": {"live-restore": False}}
    assert deploy(host, _install, without).changed == [CONFIGURE, RUN]
    host.ssh(f"docker run -d --name old {SERVER}")
    age = "docker inspect -f '{{.State.StartedAt}} {{.State.Status}}' old"
    running = host.ssh(age).stdout
    assert deploy(host, _install, {}).changed == [CONFIGURE, RUN]
    assert host.ssh(f"{age}; docker rm -f old >/dev/null").stdout == running


def test_two_owners_share_the_file(host: Machine) -> None:
    mine = {"features": {"cdi": True}}
    assert converge(host, _options, mine, "toolkit").changed == ["Configure"]
    assert _config(host)["features"] == {"cdi": True}
    assert deploy(host, _install, {}, dry=True).changed == [RUN]
    assert deploy(host, _options, {}, "toolkit").changed == ["Configure"]
    assert "features" not in _config(host) and _config(host)["log-driver"] == "local"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"debug": true,\n}', "/etc/docker/daemon.json is not valid JSON at line 2, column 1"),
        ('["debug"]', "/etc/docker/daemon.json must contain a JSON object"),
    ],
)
def test_broken_file_is_refused_and_kept(host: Machine, content: str, sentence: str) -> None:
    good = host.ssh("cat /etc/docker/daemon.json").stdout
    host.ssh("cat > /etc/docker/daemon.json", input=content)
    try:
        outcome = deploy(host, _install, {})
        assert not outcome.succeeded and sentence in outcome.output
        assert host.ssh("cat /etc/docker/daemon.json").stdout == content
    finally:
        host.ssh("cat > /etc/docker/daemon.json", input=good)


@pytest.mark.parametrize("options", [{"log-drivr": "local"}, {"live-restore": "perhaps"}])
def test_what_dockerd_refuses_never_becomes_live(host: Machine, options: dict[str, Any]) -> None:
    before, good = _started(host), _config(host)
    outcome = deploy(host, _install, {"docker_daemon_options": options})
    assert not outcome.succeeded and "dockerd rejects these settings" in outcome.output
    assert _config(host) == good and _started(host) == before
    assert host.ssh("ls -A /etc/docker /var/lib/llmhost/docker").stdout.count("llmhost-new") == 0


def test_reboot_changes_nothing(host: Machine) -> None:
    deploy(host, _install, {})
    host.reboot()
    assert deploy(host, _install, {}, dry=True).changed == []
    assert host.ssh("docker info --format '{{.LiveRestoreEnabled}}'").stdout == "true\n"


STORE = {"docker_daemon_options": {"features": {"containerd-snapshotter": True}}}
# Below the machine's only directory that is not on an overlay.
ELSEWHERE = "/var/lib/docker/elsewhere"
WIPE = (
    "systemctl stop docker.socket docker containerd; rm -rf /var/lib/docker/* /var/lib/containerd/*"
    " /etc/docker/daemon.json /var/lib/llmhost/docker; sed -i '/^root/d'"
    " /etc/containerd/config.toml; systemctl start containerd docker"
)
BLOBS = "find {} -path '*/blobs/sha256/*' 2>/dev/null | wc -l"


SPACE_SCRIPTS = ("docker/functions.sh", "docker/room.sh")


def _images_follow_the_data_root(machine: Machine) -> None:
    moved = STORE | {"docker_data_root": ELSEWHERE}
    machine.ssh(WIPE)
    converge(machine, _install, moved)
    machine.ssh(IMAGE)
    root = f"{ELSEWHERE}/containerd-root"
    assert int(machine.ssh(BLOBS.format(root)).stdout) > 0
    assert machine.ssh(BLOBS.format("/var/lib/containerd")).stdout == "0\n"
    room = f"sh -s {ELSEWHERE}/uploads -- < /dev/stdin | grep ^images"
    assert (
        machine.ssh(room, input="".join(map(script_text, SPACE_SCRIPTS)))
        .stdout.strip()
        .endswith(f"|{root}")
    )
    again = deploy(machine, _install, moved | {"docker_data_root": "/var/lib/docker/third"})
    assert not again.succeeded
    assert f"containerd keeps data in {root}, and docker_data_root puts it in" in again.output
    machine.ssh(WIPE)


def test_data_elsewhere_is_refused_with_the_steps_and_images_follow_the_data_root(
    host: Machine,
) -> None:
    refused = deploy(host, _install, {"docker_data_root": ELSEWHERE})
    assert not refused.succeeded
    assert f"cp -a /var/lib/docker/. {ELSEWHERE}/" in refused.output
    _images_follow_the_data_root(host)


@pytest.mark.flavours
def test_images_follow_the_data_root_on_docker_28(lan: Lan) -> None:
    machine = lan.machine("docker28", suite="forky")
    packages = "docker.io docker-cli docker-compose docker-buildx busybox-static iproute2"
    machine.ssh(f"apt-get -q update; apt-get -y -q --no-install-recommends install {packages}")
    assert machine.ssh("docker version -f '{{.Server.Version}}'").stdout.startswith(("28", "29"))
    with _release(machine, ID="debian", VERSION_ID="13", VERSION_CODENAME="trixie"):
        _images_follow_the_data_root(machine)


# --- Docker's own packages -------------------------------------------------------------------

VERSION = "5:29.10.0-1~debian.13~trixie"
OLDER = "5:29.7.0-1~debian.13~trixie"
CONFLICT = {"Conflicts": "docker.io, runc"}
VENDOR = [
    *(DebDouble("docker-ce", version, fields=CONFLICT) for version in (VERSION, OLDER)),
    *(DebDouble("docker-ce-cli", version) for version in (VERSION, OLDER)),
    DebDouble("containerd.io", "2.2.0-1"),
    DebDouble("docker-buildx-plugin", "0.30.0-1"),
    DebDouble("docker-compose-plugin", "5.0.0-1"),
]


def _engine(version: str | None, url: str, fingerprint: str, key: bytes | None = None) -> None:
    docker.engine(
        "docker",
        version=version,
        repository_url=url,
        key_fingerprint=fingerprint,
        key=key,
        name="Install",
    )


def _vendored(key: bytes) -> None:
    url = "https://download.docker.com/linux"
    source = docker_repository(url, DOCKER_KEY, key, "debian", "trixie")
    apt.repository(source, name="Trust Docker")


@pytest.fixture(scope="module")
def vendor(
    lan: Lan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, str, str]]:
    """A fresh machine, and the address and key of a double of Docker's repository."""
    directory = tmp_path_factory.mktemp("docker")
    built = build_repository(directory / "debian", VENDOR, suite="trixie")
    with serving(directory, lan.gateway) as url:
        yield lan.machine("vendor"), url, built.fingerprint


def _packages(machine: Machine) -> dict[str, str]:
    query = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}=${Version}\\n'"
    lines = machine.ssh(f"{query} | grep -E 'docker|containerd|runc'", check=False).stdout
    states = (line.split() for line in lines.splitlines())
    return {package: state for state, package in states}


@pytest.mark.flavours
def test_docker_s_own_packages_replace_the_distribution_s(
    vendor: tuple[Machine, str, str],
) -> None:
    machine, url, fingerprint = vendor
    machine.ssh("apt-get update -qq; apt-get install -qy runc")
    # What an earlier installation by hand leaves: two keys for one source, which stops apt.
    machine.ssh("mkdir -p /etc/apt/keyrings; touch /etc/apt/keyrings/docker.asc")
    machine.ssh(
        f"echo 'deb [signed-by=/etc/apt/keyrings/docker.asc] {url}/debian trixie stable'"
        " > /etc/apt/sources.list.d/docker.list"
    )
    impostor = deploy(machine, _engine, None, url, "B" * 40)
    assert not impostor.succeeded and fingerprint in impostor.output
    assert [name for name in _packages(machine) if name.startswith("docker")] == []

    assert converge(machine, _engine, OLDER, url, fingerprint).changed == ["Install"]
    expected = {f"docker-ce={OLDER}", f"docker-ce-cli={OLDER}", "containerd.io=2.2.0-1"}
    found = _packages(machine)
    assert expected <= set(found) and {found[name] for name in expected} == {"hi"}
    assert not any(name.startswith("runc=") for name in found)

    assert converge(machine, _engine, None, url, fingerprint).changed == ["Install"]
    assert set(_packages(machine).values()) == {"ii"}
    assert converge(machine, _engine, VERSION, url, fingerprint).changed == ["Install"]
    assert _packages(machine)[f"docker-ce={VERSION}"] == "hi"


def test_vendored_key_needs_no_download(vendor: tuple[Machine, str, str]) -> None:
    machine, _, _ = vendor
    key = Path("files/docker/docker.asc").read_bytes()
    assert converge(machine, _vendored, key).changed == ["Trust Docker"]
    assert machine.ssh("stat -c %a /etc/apt/keyrings/docker.gpg").stdout == "644\n"


@contextmanager
def _release(machine: Machine, **fields: str) -> Iterator[None]:
    """The machine with another distribution's os-release."""
    machine.ssh("cp /usr/lib/os-release /run/os-release")
    lines = "".join(f"{key}={value}\n" for key, value in fields.items())
    machine.ssh("cat > /usr/lib/os-release", input=lines)
    try:
        yield
    finally:
        machine.ssh("cat /run/os-release > /usr/lib/os-release")


def test_debian_12_is_refused_with_the_fix(vendor: tuple[Machine, str, str]) -> None:
    machine, _, _ = vendor
    with _release(machine, ID="debian", VERSION_ID="12", VERSION_CODENAME="bookworm"):
        outcome = deploy(machine, _install, {})
    assert not outcome.succeeded and 'set docker_source = "docker"' in outcome.output


def _ubuntu(source: Repository) -> None:
    apt.repository(source, name="Trust the double of Ubuntu's archive")
    docker.engine(
        "distribution",
        repository_url="https://download.docker.com/linux",
        key_fingerprint=DOCKER_KEY,
        name="Install",
    )


@pytest.mark.flavours
def test_ubuntu_s_packages_replace_docker_s_own(
    vendor: tuple[Machine, str, str], lan: Lan, tmp_path: Path
) -> None:
    machine, url, fingerprint = vendor
    assert deploy(machine, _engine, VERSION, url, fingerprint).succeeded
    archive = build_repository(
        tmp_path / "archive",
        [
            # Unlike the real one, it has no systemd unit and nothing to configure.
            DebDouble("docker.io", "28.2.2-0ubuntu1~24.04.1", fields={"Conflicts": "docker-ce"}),
            DebDouble("docker-compose-v2", "2.37.1+ds1-0ubuntu2~24.04.1"),
            DebDouble("docker-buildx", "0.21.3-0ubuntu1~24.04.1"),
        ],
    )
    with (
        serving(tmp_path / "archive", lan.gateway) as address,
        _release(machine, ID="ubuntu", VERSION_ID='"24.04"', VERSION_CODENAME="noble"),
    ):
        source = Repository("ubuntu", address, "/", (), archive.fingerprint, f"{address}/gpg")
        assert "Install" in converge(machine, _ubuntu, source).changed
    names = {package.partition("=")[0]: state for package, state in _packages(machine).items()}
    assert names == {"docker.io": "ii", "docker-compose-v2": "ii", "docker-buildx": "ii"}
    left = machine.ssh("ls /etc/apt/sources.list.d /etc/apt/keyrings").stdout
    assert "docker" not in left
