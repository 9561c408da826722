"""The gateway deployed by pyinfra on a real machine, and asked from another one."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from llmhost.gateway.keys import digest, new_key
from llmhost.inventory.reader import read_settings
from llmhost.settings import Settings
from llmhost.tasks.gateway import configure_gateway
from testbed import Client, Lan, Machine
from tests.integration.harness import Outcome, converge, deploy

pytestmark = pytest.mark.machines

KEY, OTHER = new_key(), new_key()
OPEN = "Gateway | Open the declared routes to the declared clients"
CONFIGURATION = "/etc/nginx/nginx.conf"


def settings(key: str = KEY, **changes: Any) -> Settings:
    data = {
        "services": ["llamacpp"],
        "models": [{"name": "m", "source": "https://x/m.gguf", "sha256": "1" * 64}],
        "api_clients": [{"name": "alice", "sha256": digest(key)}],
        "gateway_stranger_burst": 1000,
        "gateway_tls": "off",
        **changes,
    }
    return read_settings(data)


@pytest.fixture(scope="module")
def outside(lan: Lan) -> Client:
    return lan.client("outside")


@pytest.fixture(scope="module")
def first(machine: Machine) -> Outcome:
    return converge(machine, configure_gateway, settings())


def status(outside: Client, machine: Machine, key: str, path: str = "/v1/models") -> str:
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5"]
    header = ["-H", f"Authorization: Bearer {key}"]
    url = f"http://{machine.address}:8080{path}"
    return outside.run([*command, *header, url], check=False).stdout


def test_bare_machine_becomes_a_gateway(first: Outcome, machine: Machine, outside: Client) -> None:
    assert OPEN in first.changed
    # 502: the key was taken, and there is no engine on this machine.
    assert status(outside, machine, KEY) == "502"
    assert status(outside, machine, OTHER) == "401"
    assert status(outside, machine, KEY, "/slots") == "404"


def test_files_belong_to_root_and_digests_are_private(first: Outcome, machine: Machine) -> None:
    found = machine.ssh("stat -c '%U:%G %a' /etc/nginx/nginx.conf /etc/nginx/llmhost/keys.map")
    assert found.stdout.splitlines() == ["root:root 644", "root:root 600"]
    assert not machine.ssh("ls -d /etc/nginx/.llmhost-new 2>/dev/null || true").stdout


def test_other_key_is_taken_up(first: Outcome, machine: Machine, outside: Client) -> None:
    converge(machine, configure_gateway, settings(OTHER))
    assert status(outside, machine, OTHER) == "502"
    assert status(outside, machine, KEY) == "401"
    converge(machine, configure_gateway, settings())


@pytest.mark.parametrize(
    "drift",
    [
        f"echo '# by hand' >> {CONFIGURATION}",
        f"chmod 0666 {CONFIGURATION}",
        "touch /etc/nginx/llmhost/stray.conf",
        "systemctl stop nginx",
        "systemctl disable -q nginx",
        "systemctl disable -q --now nginx; systemctl mask -q nginx",
    ],
)
def test_drift_is_healed(first: Outcome, machine: Machine, outside: Client, drift: str) -> None:
    machine.ssh(drift)
    assert OPEN in converge(machine, configure_gateway, settings()).changed
    assert status(outside, machine, KEY) == "502"


@pytest.mark.faults
def test_files_of_a_killed_run_are_taken_up(
    first: Outcome, machine: Machine, outside: Client
) -> None:
    """All files of another configuration are in place, and nginx was never told."""
    machine.ssh("cp -a /etc/nginx /tmp/nginx-before")
    converge(machine, configure_gateway, settings(OTHER))
    machine.ssh("cp -a /etc/nginx /tmp/nginx-other")
    converge(machine, configure_gateway, settings())
    machine.ssh("rm -rf /etc/nginx && cp -a /tmp/nginx-other /etc/nginx")
    assert status(outside, machine, OTHER) == "401"
    assert OPEN in converge(machine, configure_gateway, settings(OTHER)).changed
    assert status(outside, machine, OTHER) == "502"
    converge(machine, configure_gateway, settings())


def test_refused_configuration_leaves_the_old_one_running(
    first: Outcome, machine: Machine, outside: Client
) -> None:
    module = "/usr/lib/nginx/modules/ngx_http_perl_module.so"
    machine.ssh(f"mv {module} {module}.away")
    try:
        outcome = deploy(machine, configure_gateway, settings(OTHER))
        assert not outcome.succeeded
        assert "ngx_http_perl_module.so" in outcome.output
        assert status(outside, machine, KEY) == "502"
        assert not machine.ssh("ls -d /etc/nginx/.llmhost-new 2>/dev/null || true").stdout
    finally:
        machine.ssh(f"mv {module}.away {module}")
    converge(machine, configure_gateway, settings())


def test_port_that_is_taken_fails_with_the_reason(
    first: Outcome, machine: Machine, outside: Client
) -> None:
    """The test passes and the reload says nothing: only the running nginx tells."""
    start = "systemd-run -q --unit=squatter python3 -m http.server 8099 --bind 0.0.0.0; sleep 1"
    machine.ssh(start)
    try:
        outcome = deploy(machine, configure_gateway, settings(gateway_port=8099))
        assert not outcome.succeeded
        assert "did not load the new configuration" in outcome.output
        assert "0.0.0.0:8099 failed" in outcome.output
        assert status(outside, machine, KEY) == "502"
    finally:
        machine.ssh("systemctl stop squatter")
    converge(machine, configure_gateway, settings())


def test_ordinary_user_with_sudo_may_deploy(first: Outcome, machine: Machine) -> None:
    outcome = deploy(machine, configure_gateway, settings(OTHER), sudo=True)
    assert outcome.succeeded and outcome.changed == [OPEN], outcome.output
    converge(machine, configure_gateway, settings())


def test_key_and_digest_are_in_no_argument_list(first: Outcome, machine: Machine) -> None:
    outcome = deploy(machine, configure_gateway, settings(OTHER))
    assert outcome.succeeded
    assert digest(OTHER) not in outcome.output
    converge(machine, configure_gateway, settings())


def test_gateway_answers_after_a_reboot(first: Outcome, machine: Machine, outside: Client) -> None:
    machine.reboot()
    assert deploy(machine, configure_gateway, settings(), dry=True).changed == []
    assert status(outside, machine, KEY) == "502"


def test_access_log_is_rotated_without_losing_a_line(
    first: Outcome, machine: Machine, outside: Client
) -> None:
    status(outside, machine, KEY)
    machine.ssh("logrotate -f /etc/logrotate.d/llmhost-gateway")
    status(outside, machine, OTHER)
    time.sleep(2)  # nginx writes within a second
    log = machine.ssh("cat /var/log/nginx/gateway.json").stdout.splitlines()
    assert len(log) == 1 and '"refusal":"key_unknown"' in log[0]
    before = machine.ssh("tail -n 1 /var/log/nginx/gateway.json.1").stdout
    assert '"client":"alice"' in before


def test_certificate_of_the_authority_is_put_in_place_and_renewed(
    first: Outcome, machine: Machine, outside: Client, tmp_path: Path
) -> None:
    def with_names(*names: str) -> Settings:
        tls = {"gateway_tls": "ca", "gateway_ca_directory": str(tmp_path / "ca")}
        return settings(**tls, gateway_names=list(names) or [])

    def secured(name: str) -> str:
        command = ["curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]
        command += ["--cacert", str(tmp_path / "ca/ca.crt")]
        command += ["--connect-to", f"{name}:8080:{machine.address}:8080"]
        command += ["-H", f"Authorization: Bearer {KEY}", f"https://{name}:8080/v1/models"]
        answer = outside.run(command, check=False)
        return answer.stdout + answer.stderr

    assert deploy(machine, configure_gateway, with_names(), dry=True).changed == [OPEN]
    assert not (tmp_path / "ca").exists()
    outcome = converge(machine, configure_gateway, with_names())
    assert "there is no certificate yet" in outcome.output
    assert "PRIVATE" not in outcome.output
    stat = machine.ssh("stat -c '%U:%G %a' /etc/nginx/llmhost/tls.pem").stdout.strip()
    assert stat == "root:root 600"
    # Without names of its own: the host's name in the inventory, and its addresses.
    assert secured("server") == secured(machine.address) == "502"
    assert "unrecognized name" in secured("llm.example")

    outcome = converge(machine, configure_gateway, with_names("llm.example"))
    assert "the certificate is not for llm.example" in outcome.output
    assert secured("llm.example") == "502"
    assert "unrecognized name" in secured("server")

    machine.ssh("chmod 0644 /etc/nginx/llmhost/tls.pem")
    outcome = converge(machine, configure_gateway, with_names("llm.example"))
    assert "users other than root could have read" in outcome.output
    converge(machine, configure_gateway, settings())
    assert not machine.ssh("ls /etc/nginx/llmhost/tls.pem 2>/dev/null", check=False).stdout


def test_metrics_are_counted_by_client_for_the_host_itself(
    first: Outcome, machine: Machine, outside: Client
) -> None:
    status(outside, machine, KEY)
    status(outside, machine, OTHER)
    time.sleep(3)  # the log is written within a second, and mtail looks at it four times a second
    metrics = machine.ssh("curl -s http://127.0.0.1:3903/metrics").stdout
    assert re.search(r'gateway_requests_total{client="alice",.*status="502"} [1-9]', metrics)
    assert re.search(r'gateway_refusals_total{client="",.*refusal="key_unknown"} [1-9]', metrics)
    listening = machine.ssh("ss -Hltn 'sport = :3903'").stdout.split()
    assert listening[3] == "127.0.0.1:3903"
    assert machine.ssh("stat -c %a /var/log/nginx/gateway.json").stdout.strip() == "640"
