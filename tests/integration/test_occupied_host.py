"""What another program on a host does, and preflight finds: real nginx, real shims of Docker."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmhost.inventory.reader import read_settings
from llmhost.tasks.gateway import configure_gateway
from llmhost.tasks.preflight import check_host
from testbed import Lan, Machine
from tests.integration.harness import Outcome, converge, deploy

pytestmark = pytest.mark.machines

SITE = "server { listen 8088; location / { return 200 mine; } }\n"
FOUND = {
    "nginx already serves other sites on this host (/etc/nginx/conf.d/mine.conf)",
    "the command docker belongs to Podman",
    "port 8443/tcp (gateway_port) is in use by python3",
    "port 8081/tcp (llamacpp_port) is in use by python3",
    "the host has",  # too little memory for this test's demand
}
STACK = {
    "services": ["llamacpp"],
    "llamacpp_port": 8081,
    "models": [{"name": "tiny", "source": "https://example.com/tiny.gguf", "sha256": "ab" * 32}],
    "api_clients": [{"name": "test", "sha256": "ab" * 32}],
}
BASE = {"preflight_min_free_disk_gib": 0.1, "gateway_tls": "off", "gateway_port": 8443}


ON_IPV4 = {
    "gateway_addresses": ["0.0.0.0"],
    "api_clients": [{"name": "test", "sha256": "ab" * 32}],
    "system_accepted_overrides": ["/etc/systemd/system/nginx.service.d/no-ipv6.conf"],
}


def _open_gateway(options: dict[str, Any]) -> None:
    configure_gateway(read_settings(options))


def _check(options: dict[str, Any]) -> None:
    check_host(read_settings(BASE | options))


@pytest.fixture(scope="module")
def host(lan: Lan) -> Machine:
    """A machine of its own with nginx as Debian installs it: nothing else may be on it."""
    machine = lan.machine("occupied")
    machine.ssh("apt-get -q update && apt-get -y -q install nginx")
    return machine


def _asked(machine: Machine, **options: Any) -> Outcome:
    return deploy(machine, _check, {"preflight_min_memory_gib": 0.1} | options)


def test_nginx_as_it_is_packaged_is_nobody_s(host: Machine) -> None:
    outcome = _asked(host)
    assert outcome.succeeded, outcome.output


def test_docker_as_a_snap_is_found(host: Machine) -> None:
    host.ssh("mkdir -p /snap/docker/2963 && ln -s 2963 /snap/docker/current")  # as snapd does
    outcome = _asked(host)
    host.ssh("rm -r /snap")
    assert not outcome.succeeded and "then run: snap remove docker" in outcome.output


def test_all_findings_of_a_host_come_at_once(host: Machine) -> None:
    host.ssh("cat >/etc/nginx/conf.d/mine.conf && nginx -t", input=SITE)
    # As podman-docker installs it beside Podman, with the answer of `docker --version`.
    host.ssh("printf '#!/bin/sh\\necho podman version 5.4.2\\n' >/usr/local/bin/podman")
    host.ssh("printf '#!/bin/sh\\nexec podman \"$@\"\\n' >/usr/local/bin/docker")
    host.ssh("chmod +x /usr/local/bin/podman /usr/local/bin/docker")
    with _occupied(host, 8443, 8081):
        outcome = _asked(host, preflight_min_memory_gib=100_000, **STACK)
    assert not outcome.succeeded
    assert [each for each in FOUND if each not in outcome.output] == []
    host.ssh("rm /usr/local/bin/docker /usr/local/bin/podman")
    assert not _asked(host).succeeded
    agreed = _asked(host, gateway_replaces_nginx=True)
    assert agreed.succeeded, agreed.output


@contextmanager
def _occupied(host: Machine, *ports: int) -> Iterator[None]:
    """Another program listens on these ports."""
    for port in ports:
        host.ssh(f"systemd-run -q --unit=other-{port} python3 -m http.server {port}")
        listens = f"until : </dev/tcp/127.0.0.1/{port}; do sleep 0.1; done"
        host.ssh(f"timeout 30 bash -c {shlex.quote(listens)} 2>/dev/null")
    try:
        yield
    finally:
        host.ssh(f"systemctl stop {' '.join(f'other-{port}' for port in ports)}")


def test_port_in_use_is_a_warning_once_the_host_is_deployed(host: Machine) -> None:
    """Otherwise a key could not be revoked while another program has a port."""
    receipt = read_settings(BASE).receipt.path
    options: dict[str, Any] = {"gateway_replaces_nginx": True}
    with _occupied(host, 8443):
        refused = _asked(host, **options)
        host.ssh(f"mkdir -p {Path(receipt).parent} && touch {receipt}")
        warned = _asked(host, **options)
        host.ssh(f"rm {receipt}")
    sentence = "port 8443/tcp (gateway_port) is in use by python3"
    assert not refused.succeeded and sentence in refused.output
    assert warned.succeeded and sentence in warned.output, warned.output


def test_sites_of_an_nginx_that_refuses_its_configuration_are_found(host: Machine) -> None:
    host.ssh("cat >/etc/nginx/conf.d/mine.conf", input=SITE + "nonsense\n")
    outcome = _asked(host)
    assert not outcome.succeeded and "conf.d/mine.conf" in outcome.output


def test_nginx_of_llmhost_is_its_own(host: Machine) -> None:
    host.ssh("mkdir /etc/nginx/llmhost")
    try:
        assert _asked(host).succeeded
    finally:
        host.ssh("rmdir /etc/nginx/llmhost")


def test_kernel_without_ipv6_is_found_before_nginx_fails_on_it(lan: Lan) -> None:
    """The login, and what it starts, gets no IPv6 sockets, as with ipv6.disable=1; neither does
    nginx, whose packaged site listens on IPv6."""
    machine = lan.machine("no-ipv6")  # of its own: its sshd is restarted
    families = "[Service]\nRestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK\n"
    for unit in ("ssh", "nginx"):
        machine.ssh(f"mkdir -p /etc/systemd/system/{unit}.service.d")
        machine.ssh(f"cat >/etc/systemd/system/{unit}.service.d/no-ipv6.conf", input=families)
    machine.ssh("systemctl daemon-reload; systemctl restart ssh")
    outcome = _asked(machine)
    assert not outcome.succeeded
    assert "gateway_addresses has ::; set gateway_addresses = ['0.0.0.0']" in outcome.output
    assert _asked(machine, gateway_addresses=["0.0.0.0"]).succeeded
    converge(machine, _open_gateway, BASE | ON_IPV4)
    machine.ssh("systemctl is-active nginx")
